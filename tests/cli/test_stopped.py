"""A change that is stopped, killed or left: undone, or its worker goes on."""

import os
import signal
import subprocess

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, addresses, ask, run, start
from tests.helpers.processes import children, is_told_to_stop, wait_until
from tests.sample import NIC

pytestmark = pytest.mark.sample

UNBIND = "*/e1000e/unbind"
UNDOING = "hostdev: warning: stopped: undoing what was begun; once more leaves that to the worker\n"


def test_a_closed_pipe_does_not_hide_that_the_change_was_made(host: SimulatedHost) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [*COMMAND, "prepare", "vm1", "01:00.0", "--host", host.root]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert addresses(host) == [NIC]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_undoes_and_then_ends_the_command(
    host: SimulatedHost, number: signal.Signals
) -> None:
    before = host.snapshot()
    host.on_write(UNBIND, hang=True)
    with start("prepare", "vm1", "01:00.0", "02:00.0", host=host) as process:
        host.wait_hanging()
        process.send_signal(number)
        wait_until(lambda: is_told_to_stop(process.pid))
        assert process.poll() is None
        host.release()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors == f"{UNDOING}hostdev: stopped by {number.name}\n"
    assert host.snapshot() == before
    assert addresses(host) == []


def test_a_signal_during_the_last_write_undoes(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", hang=True)
    with start("prepare", "vm1", "01:00.0", host=host) as process:
        host.wait_hanging()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_told_to_stop(process.pid))
        host.release()
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert host.snapshot() == before
    assert addresses(host) == []


def test_a_second_signal_returns_at_once_and_the_undo_goes_on(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write(UNBIND, hang=True)
    with start("prepare", "vm1", "01:00.0", host=host) as process:
        host.wait_hanging()
        process.send_signal(signal.SIGINT)
        wait_until(lambda: is_told_to_stop(process.pid))
        assert process.stderr is not None
        assert process.stderr.readline() == UNDOING
        (worker,) = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)  # the write hangs for ever
    assert process.returncode == 130
    left, more = errors.splitlines()
    assert left == "hostdev: left by SIGINT before all was undone"
    assert more.startswith(f"  the undo is left to the worker, pid {worker}, which goes on")
    assert host.hanging()
    host.release()
    wait_until(lambda: not addresses(host))
    assert host.snapshot() == before


def test_killed_in_the_middle_the_worker_goes_on(host: SimulatedHost) -> None:
    host.on_write(UNBIND, hang=True)
    with start("prepare", "vm1", "01:00.0", host=host) as process:
        host.wait_hanging()
        process.kill()
        process.wait()
        host.release()
        wait_until(lambda: str(host.ledger.records()[0].phase) == "active")
    assert run("reattach", "vm1", host=host).returncode == 0


@pytest.mark.long
def test_a_hanging_kernel_does_not_keep_the_shell(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write(UNBIND, hang=True)
    done = run("prepare", "vm1", "01:00.0", "04:00.0", "--timeout", "3", host=host)
    assert done.returncode == 3
    assert "the kernel has not returned in time" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.hanging()
    assert ask("status", host=host)["stuck"] == [NIC]
    assert run("status", host=host).returncode == 3
    assert "stuck" in run("list", host=host).stdout
    assert run("prepare", "vm2", "02:00.0", host=host).returncode == 0
    assert run("reattach", "vm2", host=host).returncode == 0
    assert run("recover", "--timeout", "3", host=host).returncode == 3
    host.release()
    wait_until(lambda: not addresses(host))
    assert host.snapshot() == before
    assert run("status", host=host).returncode == 0


def test_what_a_killed_worker_left_is_recovered(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", hang=True)
    with start("prepare", "vm1", "01:00.0", host=host) as process:
        host.wait_hanging()
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "hostdev recover" in errors
    assert ask("list", host=host)["devices"][1]["state"] == "left over"
    done = run("recover", host=host)
    assert (done.returncode, done.stdout) == (0, f"{NIC} is back\n")
    assert host.snapshot() == before
