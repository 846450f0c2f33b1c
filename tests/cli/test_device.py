"""`hostdev device`: detach, reattach and reset one device, and forget one."""

from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import addresses, ask, run, start
from tests.sample import NIC

pytestmark = pytest.mark.sample

UNBIND = "*/e1000e/unbind"


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
