"""What the rules look at beside a PCI device: the members of its group, on whatever bus, and its PF."""

from collections.abc import Sequence

from hostdev_core.bus.pci import group_members
from hostdev_core.bus.pci_state import Drivers, read_drivers
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.kernel.vfio import Member
from hostdev_core.model.device import PCIDevice
from hostdev_core.model.record import Record
from hostdev_core.planning.pci_rules import other_members


def list_group(host: Host, group: int | None) -> list[str]:
    """List the members of an IOMMU group, those of other buses, too; none for no group."""
    return [] if group is None else group_members(host.sysfs, group)


def drivers_beside(
    inventory: Inventory,
    device: PCIDevice,
    members: Sequence[PCIDevice],
    others: Sequence[Member],
) -> Drivers:
    """The drivers that the rules go by beside a device: those of its group, on any bus, and of its PF."""
    found = {(member.name, member.kernel_driver) for member in members}
    found |= {(other.name, other.kernel_driver) for other in others}
    if device.physfn is not None:
        parent = inventory.pci.get(device.physfn)
        found.add((device.physfn, parent.kernel_driver if parent is not None else None))
    return frozenset(found)


def read_drivers_beside(host: Host, record: Record) -> Drivers:
    """Read the same again for a claimed device."""
    names: set[str] = set()
    listed = list_group(host, record.group)
    if record.group is not None:
        names.update(host.buses.pci.members(record.group, {record.address}, listed))
    if record.physfn is not None:
        names.add(record.physfn)
    others = other_members(host, record.group, listed)
    found = read_drivers(host.sysfs, names - {record.address})
    return found | {(other.name, other.kernel_driver) for other in others}
