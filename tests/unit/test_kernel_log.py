"""What the kernel's log says of a crash, by the thread that it ended."""

from pathlib import Path

import pytest

from hostdev_core.kernel_log import KernelLog, Message, find_oops, read_log

NULL = """BUG: kernel NULL pointer dereference, address: 0000000000000000
#PF: supervisor write access in kernel mode
PGD 0 P4D 0
Oops: 0002 [#1] PREEMPT SMP NOPTI
CPU: 0 PID: {} Comm: python Tainted: G           OE      6.1.0-56-amd64 #1
RIP: 0010:lab_remove+0xe/0x1e [lab_crash]"""
ARM = """Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000
Mem abort info:
Internal error: Oops: 0000000096000045 [#1] SMP
Modules linked in: lab_crash(OE)
CPU: 3 UID: 0 PID: {} Comm: python Tainted: G           OE"""
BUG_ON = """------------[ cut here ]------------
kernel BUG at drivers/pci/pci.c:1234!
invalid opcode: 0000 [#2] PREEMPT SMP
CPU: 1 PID: {} Comm: python"""
WARNING = """WARNING: CPU: 1 PID: {} at kernel/x.c:1 f+0x1/0x2
CPU: 1 PID: {} Comm: python"""


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        (NULL, ["BUG: kernel NULL pointer dereference, address: 0000000000000000",
                "Oops: 0002 [#1] PREEMPT SMP NOPTI"]),
        (ARM, ["Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
               "Internal error: Oops: 0000000096000045 [#1] SMP"]),
        (BUG_ON, ["kernel BUG at drivers/pci/pci.c:1234!"]),
        (WARNING, []),
    ],
)  # fmt: skip
def test_a_crash_is_found_by_its_thread(report: str, lines: list[str]) -> None:
    for others in ((), (NULL, 25), (BUG_ON, 2520), (WARNING, 252)):
        texts = others[0].replace("{}", str(others[1])).splitlines() if others else []
        mine = report.replace("{}", "252").splitlines()
        assert find_oops([*texts, *mine, *texts], 252) == lines
        assert find_oops(texts, 252) == []


def test_messages_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("4,17,27700393,-;Oops: 0002 [#1]\n SUBSYSTEM=pci\n")
    assert [*read_log(str(log))] == [Message(27.700393, "Oops: 0002 [#1]")]
    log.write_text("nothing of that kind\n")
    assert [*read_log(str(log))] == []
    assert [*read_log(str(tmp_path / "absent"))] == []
    assert [*read_log(None)] == []


def test_what_is_said_later(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("4,17,999999999999999,-;0000:01:00.0: no\n")
    with KernelLog(str(log)) as kernel:
        assert kernel.lines("0000:01:00.0", "x") == ["0000:01:00.0: no"]
    for path in (None, str(tmp_path / "absent"), str(tmp_path)):
        with KernelLog(path) as kernel:
            assert kernel.lines("") == []
