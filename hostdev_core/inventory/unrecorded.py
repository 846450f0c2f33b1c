"""Devices on a stub driver that no record knows: bound by somebody else, or their ledger was lost.

The former driver of such a device is not known any more. The device is named, with the command that
gives it to the host's own driver. Only names and links are read, and no plugin is loaded.
"""

from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from hostdev_core.model.device import PCIDevice, is_vfio_driver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.device import Device
    from hostdev_core.model.plan import DevicePlan
    from hostdev_core.model.record import Record

UNHEARD = frozenset(
    {"pciback", "xen-pciback"}
)  # who has a device there, a hypervisor alone can tell
STUBS = UNHEARD | {"pci-stub"}


class Unrecorded(NamedTuple):
    """A PCI device on a stub driver, of which no record knows."""

    address: str
    kernel_driver: str

    def __str__(self) -> str:
        return (
            f"{self.address} is on {self.kernel_driver}, and no record says why: its ledger was lost, or"
            f" somebody else bound it; {to_host_words(self.address)}"
        )


def to_host_words(address: str) -> str:
    """The command that gives such a device back to the host, for messages."""
    return f"`hostdev device reattach --to-host {address}` gives it to the host's own driver"


def is_stub(kernel_driver: str | None) -> bool:
    """Whether a kernel driver only keeps devices for guests, by its name."""
    return kernel_driver in STUBS or is_vfio_driver(kernel_driver)


def is_unrecorded(inventory: "Inventory", device: "Device") -> bool:
    """Whether a device is on a stub driver while the ledger, which can be read, has no record of it."""
    if not isinstance(device, PCIDevice) or not is_stub(device.kernel_driver):
        return False
    key = device.kind, device.name
    if inventory.records is None or inventory.record_of_device(key) is not None:
        return False
    # A slot that the record of an earlier device left took this one: that record accounts for it.
    record = inventory.record_at_address(key)
    return record is None or not record.seizes(device.kernel_driver)


def find_unrecorded(host: "Host", records: "Iterable[Record]") -> "list[Unrecorded]":
    """Find all PCI devices on a stub that no record explains, by address.

    A record of another device that was at the address before explains nothing, unless traces of that
    one took the device: then the end of that record frees it, too.
    """
    known = {record.key: record for record in records}
    found: list[Unrecorded] = []
    for driver in filter(is_stub, host.sysfs.names(PCI_DRIVERS)):
        for name in host.sysfs.names(f"{PCI_DRIVERS}/{driver}"):
            if ":" in name and not _is_explained(host, known.get(("pci", name)), name, driver):
                found.append(Unrecorded(name, driver))
    return sorted(found)


def _is_explained(host: "Host", record: "Record | None", address: str, driver: str) -> bool:
    """Whether the record is about this device, or its traces may have taken it there."""
    if record is None:
        return False
    same = record.inode in {None, host.sysfs.inode(f"{PCI_DEVICES}/{address}")}
    return same or record.seizes(driver)


def warn_of_plan(plans: "Iterable[DevicePlan]") -> "Iterator[str]":
    """Yield a warning for each device that was found on a stub, with its former driver unknown.

    On any stub, not just on the one that it is planned for: it returns to it.
    """
    for record in (plan.record for plan in plans):
        driver = record.found.kernel_driver
        if is_stub(driver) and not record.listed:
            yield (
                f"{record.address} is on {driver} already and returns there; where it was before is not"
                f" known; {to_host_words(record.address)}"
            )
