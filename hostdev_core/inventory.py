"""Look: what is there, joined with what the ledger knows, once for a call."""

from typing import NamedTuple, TypeVar

from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.pci import PCIDevice, list_pci
from hostdev_core.usb import USBDevice, list_usb

_Device = TypeVar("_Device", PCIDevice, USBDevice)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostdev_core.host import Host
    from hostdev_core.record import Record


class Inventory(NamedTuple):
    """The devices of a host and the records of its ledger, at one moment.

    `records` is None when the ledger cannot be read: whose a device is, is unknown then, and
    `unread` says why.
    """

    pci: dict[str, PCIDevice]
    usb: dict[str, USBDevice]
    records: "dict[tuple[str, str], Record] | None"
    unread: str | None = None

    def group(self, number: int | None) -> list[PCIDevice]:
        """The members of an IOMMU group, by address; none for a device without a group."""
        if number is None:
            return []
        return [device for device in self.pci.values() if device.iommu_group == number]

    def record(self, device: PCIDevice | USBDevice) -> "Record | None":
        """The device's record, if there is one."""
        return self.records.get((device.kind, device.name)) if self.records else None

    def with_records(self, records: "dict[tuple[str, str], Record]") -> "Inventory":
        """The same devices under other records."""
        return Inventory(
            _join([*self.pci.values()], records), _join([*self.usb.values()], records), records
        )

    @property
    def absent(self) -> "list[Record]":
        """The records of devices that are not there (any more)."""
        present = self.pci.keys() | self.usb.keys()
        return [record for key, record in (self.records or {}).items() if key[1] not in present]


def look(host: "Host", *, tolerant: bool = False) -> Inventory:
    """Look at everything once.

    With `tolerant`, a ledger that cannot be read is left unknown; otherwise NotPermittedError or
    StateError.
    The ledger is read first: a device that is taken meanwhile shows as free on its old driver, and
    the claim finds that out.
    """
    records: dict[tuple[str, str], Record] | None = None
    unread: str | None = None
    try:
        records = {record.key: record for record in read_records(host)}
    except (NotPermittedError, StateError) as error:
        if not tolerant:
            raise
        unread = str(error)
    pci, usb = _join(list_pci(host.sysfs), records), _join(list_usb(host.sysfs), records)
    return Inventory(pci, usb, records, unread)


def read_records(host: "Host") -> "list[Record]":
    """The ledger's records; sqlite3 is not loaded when there is no ledger."""
    import os

    try:
        os.lstat(host.state_dir)
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise NotPermittedError(f"may not read {host.state_dir}; run as root") from error
    return host.ledger.records()


def _join(
    devices: "Sequence[_Device]", records: "dict[tuple[str, str], Record] | None"
) -> dict[str, _Device]:
    known = records or {}
    return {
        (name := device.name): with_record(device, known.get((device.kind, name)))
        for device in devices
    }


def with_record(device: _Device, record: "Record | None") -> _Device:
    """The device with what the ledger knows of it."""
    if record is None:
        if device.phase is None:
            return device
        return device._replace(used_by=None, phase=None, stuck=None)
    return device._replace(used_by=record.owner, phase=str(record.phase), stuck=record.stuck)
