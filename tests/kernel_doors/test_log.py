"""What the kernel's log says of a crash, by the thread that it ended."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from hostdev_core.kernel.log import KernelLog, Message, find_oops, read_messages

pytestmark = pytest.mark.quick_cases

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


@pytest.mark.parametrize("report", [NULL, ARM, BUG_ON])
@pytest.mark.parametrize("between", [NULL, ARM, BUG_ON, WARNING])
def test_nothing_is_lost_where_two_reports_are_mixed(report: str, between: str) -> None:
    """Each line of another processor may stand anywhere among the lines of this thread's crash."""
    mine, others = report.replace("{}", "252"), between.replace("{}", "25")
    wanted = find_oops(mine.splitlines(), 252)
    for texts in mixtures(mine.splitlines(), others.splitlines()):
        assert {*wanted} <= {*find_oops(texts, 252)}, texts


def mixtures(left: list[str], right: list[str]) -> Iterator[list[str]]:
    """All orders of the lines of two reports."""
    for places in combinations(range(len(left) + len(right)), len(left)):
        sides = iter(left), iter(right)
        yield [next(sides[place not in places]) for place in range(len(left) + len(right))]


def test_where_threads_have_other_numbers_any_crash_is_told() -> None:
    report = BUG_ON.replace("{}", "252").splitlines()
    assert find_oops(report, None) == ["kernel BUG at drivers/pci/pci.c:1234!"]
    assert find_oops(["usb 1-1: new device", "BUG: something"], 252) == ["BUG: something"]


class Log:
    """What read(2) of /dev/kmsg answers, one after the other: a message, or an errno."""

    def __init__(self, *answers: bytes | int) -> None:
        self.left = [*answers]

    def __call__(self) -> bytes:
        answer = self.left.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer


def test_messages_that_were_overwritten_are_not_the_end() -> None:
    log = Log(errno.EPIPE, b"4,17,27700393,-;Oops: 0002 [#1]\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n",
              errno.EPIPE, errno.EPIPE, b"6,19,27700395,-,caller=T252;---[ end ]---\n",
              errno.EAGAIN, b"6,20,27700399,-;later\n")  # fmt: skip
    assert [*read_messages(log)] == [
        Message(27.700393, "Oops: 0002 [#1]"),
        Message(27.700395, "---[ end ]---"),
    ]
    assert len(log.left) == 1
    for nothing in (b"", errno.EIO, errno.EAGAIN):
        assert [*read_messages(Log(nothing))] == []
    assert [*read_messages(Log(b"nothing of that kind\n", b""))] == []


def put(log: Path, *messages: tuple[float, str]) -> None:
    with log.open("a") as file:
        file.writelines(f"4,1,{seconds * 1e6:.0f},-;{text}\n" for seconds, text in messages)


def test_what_is_said_later(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    put(log, (1e9, "0000:01:00.0: no"))
    with KernelLog(str(log)) as kernel:
        assert kernel.lines("0000:01:00.0", "x") == ["0000:01:00.0: no"]
    assert kernel.lines("") == []
    for path in (None, str(tmp_path / "absent"), str(tmp_path)):
        with KernelLog(path) as kernel:
            kernel.mark()
            assert kernel.lines("") == []
            assert kernel.oops(252) == []


def test_a_crash_of_a_thread_that_had_the_number_before_is_another(tmp_path: Path) -> None:
    log, report = tmp_path / "kmsg", BUG_ON.replace("{}", "252").splitlines()
    put(log, *((0.0, line) for line in report))
    with KernelLog(str(log)) as kernel:
        assert kernel.oops(252) == []
        put(log, *((time.monotonic() + 60, line) for line in report))
        assert kernel.oops(252) == ["kernel BUG at drivers/pci/pci.c:1234!"]


def test_in_another_pid_namespace_the_kernel_s_numbers_are_not_known() -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    code = "from hostdev_core.kernel.processes import is_initial_namespace as i; print(i())"
    try:
        done = subprocess.run([*words, code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to unshare")
    assert done.stdout == "False\n"
