"""The command while the kernel does not return: back at its deadline, and whoever is killed."""

import os
import pty
import re
import select
import signal
import subprocess

import pytest

from hostdev_core import Connection, Domain
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, QEMU, ask, run, start
from tests.helpers.processes import wait_until
from tests.helpers.users import CARD, mounted, plug_in
from tests.sample import NIC


@pytest.mark.long
def test_the_command_is_back_at_its_deadline(host: SimulatedHost) -> None:
    """Meanwhile all others answer; when the kernel returns, the device goes home by itself."""
    plug_in(host)
    words = mounted(host)
    before = host.snapshot()
    host.on_write("bus/pci/drivers/combi/unbind", hang=True)
    failed = run("prepare", "vm1", CARD, "--allow", "in-use", "--timeout", "3", *QEMU, host=host)
    assert failed.returncode == 3
    assert words in failed.stderr
    assert host.hanging()
    others = (("list",), ("show", CARD), ("show", NIC), ("plan", "vm2", NIC, *QEMU))
    for command in (*others, ("prepare", "vm2", NIC, *QEMU), ("reattach", "vm2", *QEMU)):
        assert run(*command, host=host).returncode == 0, command
    assert words in run("show", CARD, host=host).stdout
    status = ask("status", host=host)
    assert status["stuck"] == [CARD]
    assert words in status["records"][0]["stuck"]
    assert host.hanging()  # nothing above has waited for it
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before
    assert run("status", host=host).returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("path", ["combi/unbind", "vfio-pci/bind", "vfio-pci/unbind", "combi/bind"])
def test_whoever_finds_what_a_killed_one_left(
    host: SimulatedHost, conn: Connection, path: str
) -> None:
    """The command and its worker are killed while the write hangs; another one brings the device home."""
    plug_in(host)
    before = host.snapshot()
    home = path in {"vfio-pci/unbind", "combi/bind"}
    if home:
        conn.prepare_hostdevs(Domain("vm1", [CARD]))
    host.on_write(f"bus/pci/drivers/{path}", hang=True)
    words = ("reattach", "vm1") if home else ("prepare", "vm1", CARD)
    with start(*words, "--timeout", "3", *QEMU, host=host) as command:
        host.wait_hanging()
        assert command.wait(60) == 3
        assert [record.stuck is not None for record in host.ledger.records()] == [True]
        (name,) = operations.list_ids(host.state_dir)
        worker = re.search(r"\(pid (\d+)\)", operations.describe(host.state_dir, name))
        assert worker is not None
        os.kill(int(worker[1]), signal.SIGKILL)
        wait_until(lambda: not operations.is_alive(host.state_dir, name))
    assert host.snapshot() != before
    assert run("recover", *QEMU, host=host).returncode == 0
    assert host.ledger.records() == []
    assert host.snapshot() == before


def test_a_person_is_shown_what_hangs_and_not_what_has_ended(host: SimulatedHost) -> None:
    plug_in(host)
    host.on_write("bus/pci/drivers/combi/unbind", hang=True)
    mine, its = pty.openpty()
    words = [*COMMAND, "prepare", "vm1", CARD, NIC, *QEMU, "--host", host.root]
    with subprocess.Popen(words, stdin=its, stdout=its, stderr=its) as command:
        os.close(its)
        host.wait_hanging()
        wait_until(lambda: host.sysfs.link(f"bus/pci/devices/{NIC}/driver") == "vfio-pci")
        shown = ""

        def is_shown() -> bool:
            nonlocal shown
            while select.select([mine], [], [], 0)[0]:
                shown += os.read(mine, 4096).decode()
            return shown.rpartition("\r\x1b[K")[2] == f"unbind {CARD} from combi"

        wait_until(is_shown)
        host.release()
        assert command.wait(60) == 0
    os.close(mine)
