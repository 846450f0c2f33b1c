"""Devices on a stub driver that no record knows: bound by somebody else, or their ledger was lost.

A lost ledger is no fact: where such a device was before, nobody knows any more. It is named, with the
way to the host's own driver. Only names and links are read, and no plugin is loaded.
"""

from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from hostdev_core.model.device import is_vfio_driver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostdev_core.host import Host
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
            f" somebody else bound it; {way_home(self.address)}"
        )


def way_home(address: str) -> str:
    """What to do about such a device."""
    return f"`hostdev device reattach --to-host {address}` gives it to the host's own driver"


def is_stub(kernel_driver: str | None) -> bool:
    """Whether a kernel driver only keeps devices for guests, by its name."""
    return kernel_driver in STUBS or is_vfio_driver(kernel_driver)


def find_unrecorded(host: "Host", records: "Iterable[Record]") -> "list[Unrecorded]":
    """All of them, by address; a record of a device that was there before knows nothing.

    Unless what that one left took the device: its end lets the device go, too.
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
    """What to say of devices that are on a stub already, nobody knows from where.

    On any one, not just on the one that they are planned for: they return to it.
    """
    for record in (plan.record for plan in plans):
        driver = record.found.kernel_driver
        if is_stub(driver) and not record.listed:
            yield (
                f"{record.address} is on {driver} already and returns there; where it was before is not"
                f" known; {way_home(record.address)}"
            )
