"""`hostdev prepare`, `reattach`, `device`, `recover`: what they change, and what a stop leaves."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, QEMU, ask, run, run_as_nobody, start
from tests.helpers.processes import children, is_told_to_stop, wait_until
from tests.sample import NIC, OTHER

pytestmark = pytest.mark.sample

UNBIND = "*/e1000e/unbind"
UNDOING = "hostdev: warning: stopped: undoing what was begun; once more leaves that to the worker\n"


def addresses(host: SimulatedHost) -> list[str]:
    return [record.address for record in host.ledger.records()]


def test_prepare_prints_words_for_qemu_and_reattach_gives_back(host: SimulatedHost) -> None:
    before = host.snapshot()
    done = run("prepare", "vm1", "01:00.0", "1-3", *QEMU, host=host)
    assert done.returncode == 0
    assert shlex.split(done.stdout) == [
        *("-device", f"vfio-pci,host={NIC}"),
        *("-device", "usb-host,hostbus=1,hostport=3"),
    ]
    assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    assert addresses(host) == [NIC, "1-3"]
    done = run("reattach", "vm1", host=host)
    assert (done.returncode, done.stdout.count("is given back")) == (0, 2)
    assert host.snapshot() == before
    assert addresses(host) == []


def test_prepare_in_json(host: SimulatedHost) -> None:
    (assignment,) = ask("prepare", "vm1", "01:00.0", host=host)["assignments"]
    assert assignment["address"] == NIC
    assert assignment["node"].endswith("/dev/vfio/1")
    assert ask("reattach", "vm1", host=host)["returned"] == [NIC]


def test_a_second_domain_is_refused_and_nothing_changes(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", host=host)
    before = host.snapshot()
    done = run("prepare", "vm2", "02:00.0", "01:00.0", host=host)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"hostdev: {NIC} is in use by domain 'vm1' of qemu (qemu:///system);"
        " `hostdev reattach vm1` gives it back [lent]\n"
    )
    assert host.snapshot() == before
    assert run("prepare", "vm1", "01:00.0", "--same-owner", host=host).returncode == 0


def test_a_kernel_that_refuses_is_exit_code_1_after_the_undo(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", errno=22)
    done = run("prepare", "vm1", "01:00.0", host=host)
    assert done.returncode == 1
    assert "EINVAL" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.snapshot() == before
    assert addresses(host) == []


def test_an_undo_that_fails_is_exit_code_3(host: SimulatedHost) -> None:
    host.on_write("*/vfio-pci/bind", errno=22)
    host.on_write("*/e1000e/bind", errno=5)
    done = run("prepare", "vm1", "01:00.0", host=host)
    assert done.returncode == 3
    assert "could not be given back" in done.stderr
    assert run("status", host=host).returncode == 3
    assert run("recover", host=host).returncode == 0
    assert addresses(host) == []


def test_reattach_tells_every_error_on_a_line_of_its_own(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "02:00.0", "1-1", host=host)
    host.on_write("*/e1000e/bind", errno=5, count=2)
    done = run("reattach", "vm1", host=host)
    assert done.returncode == 3
    first, *rest = done.stderr.splitlines()
    assert first == f"hostdev: not given back: {NIC}, {OTHER}"
    assert [line.startswith("  ") for line in rest] == [True, True]
    assert ask("status", host=host)["stuck"] == [NIC, OTHER]
    assert run("recover", host=host).returncode == 0


def test_reattach_of_some_devices(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "02:00.0", "1-1", host=host)
    run("reattach", "vm1", "02:00.0", "1-1", host=host)
    assert addresses(host) == [NIC]


def test_reattach_of_nothing_says_where_the_devices_are(host: SimulatedHost) -> None:
    run("prepare", "vm1", "01:00.0", "-c", f"test://{host.root}")
    done = run("reattach", "vm1", *QEMU, host=host)
    assert done.returncode == 0
    assert "holds nothing under qemu:///system" in done.stdout
    assert f"{NIC} is held by domain 'vm1' of test (test://{host.root})" in done.stdout


def test_whole_group_stub_and_unmanaged(host: SimulatedHost) -> None:
    before = host.snapshot()
    assert run("prepare", "vm1", "01:00.0", "--unmanaged", host=host).returncode == 1
    assert run("prepare", "vm1", "03:00.0", host=host).returncode == 1
    words = ("03:00.0", "--whole-group", "--stub", "pci-stub")
    assert run("prepare", "vm1", *words, host=host).returncode == 1  # QEMU opens VFIO devices only
    place = ("-c", f"test://{host.root}")
    assert run("prepare", "vm1", *words, *place).returncode == 0
    assert host.snapshot()["0000:03:00.0"]["kernel_driver"] == "pci-stub"
    assert run("reattach", "vm1", *place).returncode == 0
    assert host.snapshot() == before


def test_one_device_goes_and_comes_back(host: SimulatedHost) -> None:
    before = host.snapshot()
    assert run("device", "detach", "01:00.0", host=host).returncode == 0
    assert run("device", "detach", "01:00.0", host=host).returncode == 0
    assert run("device", "reset", "01:00.0", host=host).returncode == 0
    assert ask("status", host=host)["records"][0]["state"] == "inactive"
    assert run("device", "reattach", "01:00.0", host=host).returncode == 0
    assert host.snapshot() == before
    assert run("device", "reattach", "01:00.0", host=host).returncode == 1
    assert run("device", "reset", "01:00.0", host=host).returncode == 1
    assert run("device", "detach", "1-1", host=host).returncode == 2


def test_forget_accepts_a_device_as_it_is(host: SimulatedHost) -> None:
    run("device", "detach", "01:00.0", host=host)
    detached = host.snapshot()
    done = run("device", "forget", "01:00.0", host=host)
    assert done.returncode == 1
    assert "vfio-pci" in done.stdout
    assert addresses(host) == [NIC]
    assert run("device", "forget", "01:00.0", "--as-is", host=host).returncode == 0
    assert addresses(host) == []
    assert host.snapshot() == detached
    assert run("device", "forget", "01:00.0", "--as-is", host=host).returncode == 1


@pytest.mark.long
def test_forget_tells_what_it_did_not_read_from_what_is_not_set(host: SimulatedHost) -> None:
    run("prepare", "vm1", NIC, host=host)
    override = Path(host.sysfs.path(f"bus/pci/devices/{NIC}/driver_override"))
    with host.hold_lock(NIC):
        done = run("device", "forget", NIC, host=host)
        present = ask("device", "forget", NIC, host=host)["present"]
    assert "override now  not read" in done.stdout
    assert "does not answer" in done.stdout
    assert "none" not in done.stdout
    assert (present["driver_override"], present["kernel_driver"]) == (None, "vfio-pci")
    assert "does not answer" in present["unread"]
    override.unlink()
    override.symlink_to("driver_override")  # a read that fails, as an EIO
    done = run("device", "forget", NIC, host=host)
    assert "cannot read" in done.stdout
    assert "override now  not read" in done.stdout
    override.unlink()
    override.write_text("(null)\n")
    assert "override now  none" in run("device", "forget", NIC, host=host).stdout
    assert ask("device", "forget", NIC, host=host)["present"]["unread"] is None
    host.unplug(NIC)
    done = run("device", "forget", NIC, host=host)
    assert "not there" in done.stdout
    assert "none" not in done.stdout


def test_forget_is_refused_while_an_operation_lives(host: SimulatedHost) -> None:
    host.on_write(UNBIND, hang=True)
    with start("prepare", "vm1", "01:00.0", host=host) as process:
        host.wait_hanging()
        done = run("device", "forget", "01:00.0", "--as-is", host=host)
        assert done.returncode == 1
        assert "at work" in done.stderr
        host.release()
        process.communicate()
    assert addresses(host) == [NIC]


def test_verbose_tells_steps_and_writes(host: SimulatedHost) -> None:
    steps = run("prepare", "vm1", "01:00.0", "-v", host=host).stderr
    assert f"hostdev: unbind {NIC} from e1000e\n" in steps
    assert "driver_override" in steps
    assert "write " not in steps
    writes = run("reattach", "vm1", "-vv", host=host).stderr
    assert "write '0000:01:00.0' to" in writes
    assert run("prepare", "vm1", "01:00.0", host=host).stderr == ""


def test_an_environment_variable_names_the_connection(host: SimulatedHost) -> None:
    env = {**os.environ, "HOSTDEV_DEFAULT_URI": f"test://{host.root}"}
    assert run("prepare", "vm1", "01:00.0", env=env).returncode == 0
    assert host.ledger.records()[0].backend == "test"


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


def test_others_may_not_change_the_real_machine() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    done = run_as_nobody("prepare", "vm1", "00:00.0", *QEMU)
    assert done.returncode == 1
    assert done.stderr.startswith("hostdev: ")
    assert "root" in done.stderr
