"""A PCI device as a plan went by it: read for the plan, and again once the device is claimed."""

from typing import NamedTuple

from hostdev_core.bus.pci import group_members, read_driver, read_functions, read_override
from hostdev_core.kernel.sysfs import PCI_DEVICES, Sysfs
from hostdev_core.model.device import PCIDetails, PCIDevice

Members = frozenset[tuple[str, str | None]]


class PCIState(NamedTuple):
    """What tells a device from the next one, what its undo goes by, and what decides whether it may be lent.

    `inode` is its directory's, which no other device has: all that stays as long as a device does is the
    same by it. `members` are the other PCI devices of its IOMMU group, each with its kernel driver;
    `has_functions`: it has virtual functions, or functions that its driver made.
    """

    inode: int | None
    kernel_driver: str | None
    is_vfio: bool
    driver_override: str | None
    power_control: str | None
    has_functions: bool
    members: Members


def state_of(device: PCIDevice, details: PCIDetails, members: Members) -> PCIState:
    """The state that was read for a plan."""
    return PCIState(
        details.inode,
        device.kernel_driver,
        device.is_vfio,
        details.driver_override,
        details.power_control,
        bool(details.numvfs or details.virtual_functions or details.functions_below),
        members,
    )


def read_state(sysfs: Sysfs, name: str, group: int | None) -> PCIState:
    """Read the state of a device of this IOMMU group now. Call it under a deadline: it may hang."""
    path = f"{PCI_DEVICES}/{name}"
    return PCIState(
        sysfs.inode(path),
        sysfs.link(f"{path}/driver"),
        sysfs.exists(f"{path}/vfio-dev"),
        read_override(sysfs, name),
        sysfs.read(f"{path}/power/control"),
        any(read_functions(sysfs, name)),
        frozenset() if group is None else read_members(sysfs, group, name),
    )


def read_members(sysfs: Sysfs, group: int, but: str) -> Members:
    """Read which other PCI devices are in an IOMMU group, and on which kernel drivers."""
    names = [name for name in group_members(sysfs, group) if name != but and ":" in name]
    return frozenset([(name, read_driver(sysfs, name)) for name in names])
