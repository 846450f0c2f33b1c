"""A record is about one device: when that is gone, the numbers it had are somebody else's."""

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    GroupNotViableError,
    NotAssignableError,
    PCIHostdev,
    PrepareFlags,
    USBHostdev,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC

OLD, MATE, NEW = "0000:05:00.0", "0000:05:00.1", "0000:06:00.0"
PF, VF = "0000:07:00.0", "0000:07:00.1"
XHCI, STICK = "0000:08:00.0", "2-1"
VM1, VM2 = Domain("vm1"), Domain("vm2")


def domain(name: str, *devices: str | USBHostdev) -> Domain:
    return Domain(name, [*devices])


def drivers(host: SimulatedHost) -> dict[str, object]:
    return {name: row.get("kernel_driver") for name, row in host.snapshot().items()}


def addresses(host: SimulatedHost) -> set[str]:
    return {record.address for record in host.ledger.records()}


def pull(host: SimulatedHost, address: str, *, then: str, group: int) -> None:
    """The kernel gives the group's number to the next card."""
    host.unplug(address)
    host.add_pci(then, kernel_driver="e1000e", iommu_group=group)


@pytest.fixture
def stale(host: SimulatedHost, conn: Connection, state: str) -> str:
    """A record in some state whose card is gone, and whose group number another card has."""
    host.add_pci(OLD, kernel_driver="e1000e", iommu_group=20)
    if state in {"sibling", "waiting"}:
        host.add_pci(MATE, kernel_driver="snd_hda_intel", iommu_group=20)
    if state == "detached":
        conn.detach_device(OLD)
    elif state == "sibling":
        conn.prepare_hostdevs(domain("vm1", OLD), PrepareFlags.WHOLE_GROUP)
    elif state == "waiting":
        conn.prepare_hostdevs(domain("vm1", OLD, MATE))
        conn.reattach_pci_hostdevs("vm1", [PCIHostdev(address=MATE)])
    elif state == "stuck":
        conn.prepare_hostdevs(domain("vm1", OLD))
        host.sysfs.write(f"bus/pci/devices/{OLD}/driver_override", "foreign")
        with pytest.raises(Exception, match="not given back"):
            conn.reattach_hostdevs("vm1")
    else:
        conn.prepare_hostdevs(domain("vm1", OLD))
    if state in {"sibling", "waiting"}:
        host.unplug(MATE)
    pull(host, OLD, then=NEW, group=20)
    return state


every_state = pytest.mark.parametrize("state", ["lent", "sibling", "waiting", "detached", "stuck"])


@every_state
def test_the_number_of_a_group_that_is_gone_keeps_nobody_out(
    host: SimulatedHost, conn: Connection, stale: str
) -> None:
    before = host.snapshot()
    assert conn.plan(domain("vm2", NEW)).devices
    (given,) = conn.prepare_hostdevs(domain("vm2", NEW))
    assert given.device is not None
    assert drivers(host)[NEW] == "vfio-pci"
    assert conn.reattach_hostdevs("vm2") == (NEW,)
    assert host.snapshot() == before
    conn.reattach_hostdevs("vm1")
    if stale == "detached":
        conn.reattach_device(OLD)
    assert (host.snapshot(), addresses(host)) == (before, set())


@every_state
def test_one_device_alone_is_kept_out_by_nobody_either(
    host: SimulatedHost, conn: Connection, stale: str
) -> None:
    before = host.snapshot()
    conn.detach_device(NEW)
    conn.reset_device(NEW)
    conn.reattach_device(NEW)
    assert host.snapshot() == before


@every_state
def test_a_device_goes_home_without_waiting_for_one_that_is_gone(
    host: SimulatedHost, conn: Connection, stale: str
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(domain("vm1", NEW))
    assert conn.reattach_pci_hostdevs("vm1", [PCIHostdev(address=NEW)]) == (NEW,)
    assert host.snapshot() == before


def test_one_that_is_gone_waits_for_nobody(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci(OLD, kernel_driver="e1000e", iommu_group=20)
    conn.prepare_hostdevs(domain("vm1", OLD))
    pull(host, OLD, then=NEW, group=20)
    conn.prepare_hostdevs(domain("vm1", NEW))
    conn.reattach_pci_hostdevs("vm1", [PCIHostdev(address=OLD)])
    assert addresses(host) == {NEW}
    assert drivers(host)[NEW] == "vfio-pci"


def test_what_its_group_has_left_goes_home(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci(OLD, kernel_driver="e1000e", iommu_group=20)
    host.add_pci(MATE, kernel_driver="snd_hda_intel", iommu_group=20)
    before = host.snapshot()
    conn.prepare_hostdevs(domain("vm1", OLD), PrepareFlags.WHOLE_GROUP)
    host.unplug(OLD)
    assert conn.recover() == (MATE,)
    assert host.snapshot() == {k: v for k, v in before.items() if k != OLD}
    assert addresses(host) == {OLD}


def test_a_guests_hold_on_a_new_group_is_asked_for(host: SimulatedHost, conn: Connection) -> None:
    """Its domain has a record of that number: which is of a card that is gone."""
    host.add_pci(OLD, kernel_driver="e1000e", iommu_group=20)
    conn.prepare_hostdevs(domain("vm1", OLD))
    host.unplug(OLD)
    host.add_pci(NEW, kernel_driver="vfio-pci", driver_override="vfio-pci", iommu_group=20)
    with host.hold(NEW, device=False), pytest.raises(DeviceInUseError) as raised:
        conn.prepare_hostdevs(domain("vm1", NEW))
    assert raised.value.rule == "held"


def test_another_card_at_a_mates_address_is_on_its_host_driver(
    host: SimulatedHost, conn: Connection
) -> None:
    host.add_pci(OLD, kernel_driver="e1000e", iommu_group=20)
    conn.prepare_hostdevs(domain("vm1", OLD))
    host.unplug(OLD)
    host.add_pci(OLD, kernel_driver="igb", iommu_group=30)
    host.add_pci(MATE, kernel_driver="igb", iommu_group=30)
    with pytest.raises(GroupNotViableError) as raised:
        conn.prepare_hostdevs(domain("vm1", MATE))
    assert raised.value.culprits == (OLD,)
    conn.prepare_hostdevs(domain("vm1", MATE), PrepareFlags.WHOLE_GROUP)
    conn.reattach_hostdevs("vm1")
    assert (drivers(host)[OLD], drivers(host)[MATE], addresses(host)) == ("igb", "igb", set())


@pytest.mark.parametrize("name", ["vm1", "vm2"])
def test_another_card_at_the_same_address_is_anybodys(
    host: SimulatedHost, conn: Connection, name: str
) -> None:
    host.add_pci(OLD, kernel_driver="e1000e", iommu_group=20)
    conn.prepare_hostdevs(domain("vm1", OLD))
    host.unplug(OLD)
    host.add_pci(OLD, kernel_driver="igb", iommu_group=21)
    before = host.snapshot()
    assert conn.plan(domain(name, OLD)).devices[0].record.found.kernel_driver == "igb"
    conn.prepare_hostdevs(domain(name, OLD))
    (record,) = host.ledger.records()
    assert record.owner is not None
    assert (record.owner.domain, record.found.kernel_driver, record.group) == (name, "igb", 21)
    conn.reattach_hostdevs(name)
    assert host.snapshot() == before


def test_virtual_functions_that_are_gone_or_made_again(
    host: SimulatedHost, conn: Connection
) -> None:
    host.add_pci(PF, kernel_driver="igb", iommu_group=30, sriov_totalvfs=2)
    numvfs = f"bus/pci/devices/{PF}/sriov_numvfs"
    host.sysfs.write(numvfs, "1")
    (vf,) = (name for name in host.snapshot() if name.startswith("0000:07") and name != PF)
    conn.prepare_hostdevs(domain("vm1", vf))
    host.sysfs.write(numvfs, "0")
    conn.prepare_hostdevs(domain("vm2", PF))
    conn.reattach_hostdevs("vm2")
    host.sysfs.write(numvfs, "1")
    (shown,) = (d for d in conn.list_devices() if d.name == vf)
    assert (shown.used_by, shown.phase) == (None, None)
    with pytest.raises(NotAssignableError) as raised:
        conn.prepare_hostdevs(domain("vm2", PF))
    assert "lent to" not in str(raised.value)
    conn.prepare_hostdevs(domain("vm2", vf))
    assert [r.owner and r.owner.domain for r in host.ledger.records()] == ["vm2"]


def test_a_physical_function_that_is_gone(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci(PF, kernel_driver="igb", iommu_group=30)
    conn.prepare_hostdevs(domain("vm1", PF))
    host.unplug(PF)
    host.add_pci(PF, kernel_driver="ixgbe", id="8086:10fb", iommu_group=31, sriov_totalvfs=1)
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "1")
    (vf,) = (name for name in host.snapshot() if name.startswith("0000:07") and name != PF)
    conn.prepare_hostdevs(domain("vm2", vf))
    assert drivers(host)[vf] == "vfio-pci"


def test_a_stick_that_is_gone_and_its_controller(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci(XHCI, class_="0c0330", kernel_driver="xhci_hcd", iommu_group=40)
    host.add_usb(STICK, controller=XHCI, serial="1")
    conn.prepare_hostdevs(domain("vm1", USBHostdev(port=STICK)))
    with pytest.raises(DeviceInUseError):
        conn.prepare_hostdevs(domain("vm2", XHCI))
    host.unplug(STICK)
    host.add_usb(STICK, controller=XHCI, serial="1")
    with pytest.raises(DeviceInUseError):  # a guest that follows the port has it again
        conn.prepare_hostdevs(domain("vm2", XHCI))
    host.unplug(STICK)
    host.add_usb(STICK, controller=XHCI, serial="2")
    conn.prepare_hostdevs(domain("vm2", XHCI))
    assert drivers(host)[XHCI] == "vfio-pci"


def test_another_stick_at_the_same_port_is_anybodys(host: SimulatedHost, conn: Connection) -> None:
    host.add_usb("1-1", serial="1")
    conn.prepare_hostdevs(domain("vm1", USBHostdev(port="1-1")))
    host.unplug("1-1")
    host.add_usb("1-1", serial="2")
    conn.prepare_hostdevs(domain("vm2", USBHostdev(port="1-1")))
    (record,) = host.ledger.records()
    assert record.owner is not None
    assert (record.owner.domain, record.usb.split()[-1]) == ("vm2", "2")


def test_a_controller_that_is_gone_and_a_stick(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci(XHCI, class_="0c0330", kernel_driver="xhci_hcd", iommu_group=40)
    conn.prepare_hostdevs(domain("vm1", XHCI))
    host.unplug(XHCI)
    host.add_pci(XHCI, class_="0c0330", kernel_driver="xhci_hcd", iommu_group=41)
    host.add_usb(STICK, controller=XHCI)
    conn.prepare_hostdevs(domain("vm2", USBHostdev(port=STICK)))
    assert addresses(host) == {XHCI, STICK}


def test_a_dead_operations_record_of_a_card_that_is_gone(
    host: SimulatedHost, conn: Connection
) -> None:
    """Left half way, with a group number that another card has."""
    host.add_pci(OLD, kernel_driver="e1000e", iommu_group=20)
    conn.prepare_hostdevs(domain("vm1", OLD))
    (record,) = host.ledger.records()
    with host.ledger.transaction() as transaction:
        transaction.update(record, record._replace(op="0" * 32))
    pull(host, OLD, then=NEW, group=20)
    conn.prepare_hostdevs(domain("vm2", NEW))
    assert drivers(host)[NEW] == "vfio-pci"
    conn.prepare_hostdevs(domain("vm2", NIC))
