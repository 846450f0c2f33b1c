"""A PCI device as a plan went by it: read for the plan, and again once the device is claimed."""

from typing import NamedTuple

from hostdev_core.bus.pci import read_driver, read_functions, read_override, read_pci
from hostdev_core.kernel.sysfs import PCI_DEVICES, Sysfs
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDetails, PCIDevice

Drivers = frozenset[tuple[str, str | None]]


class PCIState(NamedTuple):
    """What tells a device from the next one, what its undo goes by, and what decides whether it may be lent.

    `drivers` are of all devices that the rules look at beside it: the other members of its IOMMU group, on
    whatever bus, and its PF. `has_functions`: it has virtual functions, or functions that its driver made.
    """

    device: PCIDevice
    inode: int | None
    driver_override: str | None
    power_control: str | None
    has_functions: bool
    drivers: Drivers


def state_of(device: PCIDevice, details: PCIDetails, drivers: Drivers) -> PCIState:
    """The state that was read for a plan."""
    return PCIState(
        device if device.phase is None else device._replace(used_by=None, phase=None, stuck=None),
        details.inode,
        details.driver_override,
        details.power_control,
        bool(details.numvfs or details.virtual_functions or details.functions_below),
        drivers,
    )


def read_state(sysfs: Sysfs, address: PCIAddress, drivers: Drivers) -> PCIState:
    """Read the state of a device now, beside these drivers of others; DeviceNotFoundError without a device.

    Call it under a deadline: it may hang.
    """
    name = str(address)
    path = f"{PCI_DEVICES}/{name}"
    # First: what is read then is of this device, or the first write finds another one.
    inode = sysfs.inode(path)
    return PCIState(
        read_pci(sysfs, address),
        inode,
        read_override(sysfs, name),
        sysfs.read(f"{path}/power/control"),
        any(read_functions(sysfs, name)),
        drivers,
    )


def read_drivers(sysfs: Sysfs, names: set[str]) -> Drivers:
    """Read the kernel drivers of PCI devices."""
    return frozenset([(name, read_driver(sysfs, name)) for name in names])
