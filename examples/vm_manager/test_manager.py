"""The manager on a simulated host: real writes with the kernel's effects, no hardware, no mocks.

What a test asserts on is the machine: is it as it was, who has what? `pytest` runs them, as any user.
"""

import errno
import sys
from collections.abc import Iterator, Sequence

import pytest

from hostdev_core import (
    Connection,
    Device,
    DeviceInUseError,
    Domain,
    KernelError,
    ReattachError,
    Refusal,
    Registry,
    VetoError,
    hookimpl,
)
from hostdev_core.testing import SimulatedHost
from manager import Manager

NIC, OTHER_NIC, DISK, STICK = "0000:01:00.0", "0000:02:00.0", "0000:04:00.0", "1-3"
# In the hypervisor's place: a process that runs until it is ended, and one that ends by itself.
RUNS = (sys.executable, "-c", "import time; time.sleep(1000)")
ENDS = (sys.executable, "-c", "")


@pytest.fixture
def manager(hostdev_connection: Connection) -> Iterator[Manager]:
    manager = Manager(hostdev_connection, RUNS)
    yield manager
    for name in [*manager.running]:
        manager.stop(name)


def words(manager: Manager, name: str) -> Sequence[str]:
    """What the hypervisor was started with."""
    arguments = manager.running[name].args
    assert isinstance(arguments, list)
    return [str(word) for word in arguments[len(RUNS) :]]


def test_a_machine_has_its_devices_while_it_runs(
    hostdev_host: SimulatedHost, manager: Manager
) -> None:
    before = hostdev_host.snapshot()
    manager.start("vm1", [NIC, STICK])
    assert hostdev_host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    assert manager.devices("vm1") == [NIC, STICK]
    assert words(manager, "vm1")[:4] == ["-name", "vm1", "-device", f"vfio-pci,host={NIC}"]

    assert sorted(manager.stop("vm1")) == [NIC, STICK]
    assert hostdev_host.snapshot() == before


def test_a_second_machine_is_refused_and_the_first_one_goes_on(
    hostdev_host: SimulatedHost, manager: Manager
) -> None:
    manager.start("vm1", [NIC])
    now = hostdev_host.snapshot()
    with pytest.raises(DeviceInUseError, match="domain 'vm1'"):
        manager.start("vm2", [OTHER_NIC, NIC])
    assert hostdev_host.snapshot() == now
    assert [*manager.running] == ["vm1"]


def test_a_kernel_that_refuses_leaves_the_host_as_it_was(
    hostdev_host: SimulatedHost, manager: Manager
) -> None:
    before = hostdev_host.snapshot()
    hostdev_host.on_write("*/vfio-pci/bind", value=OTHER_NIC, errno=errno.ENODEV)
    with pytest.raises(KernelError):
        manager.start("vm1", [NIC, OTHER_NIC])
    assert hostdev_host.snapshot() == before
    assert not manager.running


def test_a_hypervisor_that_does_not_start_leaves_the_host_as_it_was(
    hostdev_host: SimulatedHost, hostdev_connection: Connection
) -> None:
    before = hostdev_host.snapshot()
    with pytest.raises(FileNotFoundError):
        Manager(hostdev_connection, ["/no/such/hypervisor"]).start("vm1", [NIC, STICK])
    assert hostdev_host.snapshot() == before
    assert hostdev_connection.get_active_usb_hostdev_list() == ()


def test_a_machine_that_ended_by_itself_is_collected(
    hostdev_host: SimulatedHost, hostdev_connection: Connection
) -> None:
    before = hostdev_host.snapshot()
    manager = Manager(hostdev_connection, ENDS)
    manager.start("vm1", [NIC])
    manager.running["vm1"].wait()
    manager.collect()
    assert hostdev_host.snapshot() == before


def test_a_device_that_is_still_open_stays_with_its_machine(
    hostdev_host: SimulatedHost, manager: Manager
) -> None:
    before = hostdev_host.snapshot()
    manager.start("vm1", [NIC, OTHER_NIC])
    with hostdev_host.hold(NIC), pytest.raises(ReattachError, match=NIC):
        manager.stop("vm1")
    assert manager.devices("vm1") == [NIC]
    manager.stop("vm1")
    assert hostdev_host.snapshot() == before


def test_a_card_that_is_pulled_out_while_it_is_lent(
    hostdev_host: SimulatedHost, manager: Manager
) -> None:
    manager.start("vm1", [NIC, OTHER_NIC])
    hostdev_host.unplug(NIC)
    assert [drift.what for drift in manager.conn.reload()] == ["gone"]
    assert sorted(manager.stop("vm1")) == [NIC, OTHER_NIC]


def test_a_restarted_manager_takes_back_what_its_predecessor_lent(
    hostdev_host: SimulatedHost, hostdev_connection: Connection, manager: Manager
) -> None:
    before = hostdev_host.snapshot()
    manager.start("vm1", [NIC])
    successor = Manager(hostdev_connection)
    assert successor.devices("vm1") == [NIC]
    assert successor.stop("vm1") == (NIC,)
    assert hostdev_host.snapshot() == before


class KeepTheDisk:
    """A rule of the site, as a plugin."""

    @hookimpl
    def hostdev_check(self, domain: Domain | None, devices: Sequence[Device]) -> list[Refusal]:
        return [Refusal("keep-disk", d.name, "has our data") for d in devices if d.name == DISK]


def test_a_rule_of_the_site_is_heard(
    hostdev_host: SimulatedHost, hostdev_registry: Registry, manager: Manager
) -> None:
    before = hostdev_host.snapshot()
    hostdev_registry.register(KeepTheDisk())
    with pytest.raises(VetoError, match="has our data"):
        manager.start("vm1", [NIC, DISK])
    assert hostdev_host.snapshot() == before
    assert not manager.running
