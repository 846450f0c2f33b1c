"""Look: what is there, joined with what the ledger knows, once for a call."""

from typing import NamedTuple, TypeVar

from hostdev_core.bus.pci import list_pci
from hostdev_core.bus.usb import PATIENCE, see_usb, serial_in
from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.model.device import PCIDevice, USBDevice

_Device = TypeVar("_Device", PCIDevice, USBDevice)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostdev_core.host import Host
    from hostdev_core.model.record import Record


class Inventory(NamedTuple):
    """The devices of a host and the records of its ledger, at one moment.

    `records` is None when the ledger cannot be read: whose a device is, is unknown then, and
    `unread` says why. `others` are the keys of records at whose address another device is now: it has
    nothing to do with them. `replugged` are those whose USB device came back under another number.
    """

    pci: dict[str, PCIDevice]
    usb: dict[str, USBDevice]
    records: "dict[tuple[str, str], Record] | None"
    unread: str | None = None
    others: frozenset[tuple[str, str]] = frozenset()
    replugged: frozenset[tuple[str, str]] = frozenset()

    def group(self, number: int | None) -> list[PCIDevice]:
        """The members of an IOMMU group, by address; none for a device without a group."""
        if number is None:
            return []
        return [device for device in self.pci.values() if device.iommu_group == number]

    def record(self, device: PCIDevice | USBDevice) -> "Record | None":
        """The device's record, if there is one: of this very device, not of one that was here before."""
        return None if (device.kind, device.name) in self.others else self.record_at(device)

    def record_at(self, device: PCIDevice | USBDevice) -> "Record | None":
        """The record at the device's address, which may be about one that was there before."""
        return self.records.get((device.kind, device.name)) if self.records else None

    def with_records(self, host: "Host", records: "dict[tuple[str, str], Record]") -> "Inventory":
        """The same devices under other records."""
        return _joined(host, [*self.pci.values()], [*self.usb.values()], records, None)

    @property
    def absent(self) -> "list[Record]":
        """The records of devices that are not there (any more), also where another one is now."""
        present = {("pci", name) for name in self.pci} | {("usb", name) for name in self.usb}
        known = self.records or {}
        return [record for key, record in known.items() if key not in present - self.others]

    def holds(self, host: "Host", record: "Record") -> bool:
        """Whether a record's device is there: only then is its place in the IOMMU group, under its PF
        or on its controller the record's.

        A USB device is judged by this look alone: one that came back to its port keeps its place, and
        so does one whose record has changed since.
        """
        from hostdev_core.inventory.drift import is_there, standing

        if record.kind == "pci":
            return is_there(host, record)
        if (self.records or {}).get(record.key) != record:
            return True
        return standing(host, record, self.usb.get(record.address)) in {"there", "replugged"}


def look(host: "Host", *, tolerant: bool = False, texts: bool = False) -> Inventory:
    """Look at everything once; nothing that takes a device's lock is read.

    With `tolerant`, a ledger that cannot be read is left unknown, and so is what cannot be seen of a
    device; otherwise NotPermittedError, StateError or KernelError. With `texts`, USB devices are asked
    for what they call themselves, too; those that do not answer keep nobody for long.
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
    found = see_usb(host.sysfs, tolerant=tolerant)
    if texts and found:
        found = host.usb_texts.fill(found, PATIENCE)
    return _joined(host, list_pci(host.sysfs, tolerant=tolerant), found, records, unread)


def read_records(host: "Host") -> "list[Record]":
    """The ledger's records; sqlite3 is not loaded when there is no ledger."""
    import os

    host.check_ledger()
    try:
        os.lstat(host.state_dir)
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise NotPermittedError(f"may not read {host.state_dir}; run as root") from error
    except OSError as error:
        raise StateError(f"cannot look at {host.state_dir}: {error.strerror}") from error
    return host.ledger.records()


def _joined(
    host: "Host",
    pci: "Sequence[PCIDevice]",
    usb: "Sequence[USBDevice]",
    records: "dict[tuple[str, str], Record] | None",
    unread: str | None,
) -> Inventory:
    seen = _standings(host, (*pci, *usb), records) if records else {}
    others = frozenset(key for key, where in seen.items() if where not in {"there", "replugged"})
    again = frozenset(key for key, where in seen.items() if where == "replugged")
    known = {key: record for key, record in (records or {}).items() if key not in others}
    return Inventory(_join(pci, known), _join(usb, known), records, unread, others, again)


def _standings(
    host: "Host",
    devices: "Sequence[PCIDevice | USBDevice]",
    records: "dict[tuple[str, str], Record]",
) -> "dict[tuple[str, str], str]":
    """What the devices at records' addresses are to those, by the records' keys (drift.standing)."""
    return {
        record.key: _standing(host, record, device)
        for device in devices
        if (record := records.get((device.kind, device.name))) is not None
    }


def _standing(host: "Host", record: "Record", device: PCIDevice | USBDevice) -> str:
    from hostdev_core.inventory.drift import standing

    if isinstance(device, USBDevice):
        return standing(host, record, device)
    if device.unread is not None:
        return "there"  # not seen; what only looks goes on
    return standing(host, record)


def _join(
    devices: "Sequence[_Device]", known: "dict[tuple[str, str], Record]"
) -> dict[str, _Device]:
    return {
        (name := device.name): with_record(device, known.get((device.kind, name)))
        for device in devices
    }


def device_of(record: "Record") -> USBDevice:
    """A USB device as its record knows it, wherever it is now: port, number, ids and serial."""
    number, _, rest = record.usb.partition(" ")
    ids, _, serial = rest.partition(" ")
    bus, _, device = number.partition(":")
    vendor, _, product = ids.partition(":")
    return USBDevice(
        record.address,
        int(bus) if bus.isdigit() else 0,
        int(device) if device.isdigit() else 0,
        vendor,
        product,
        serial or None,
    )


def with_record(device: _Device, record: "Record | None") -> _Device:
    """The device with what the ledger knows of it, a USB device's serial too."""
    if record is None:
        if device.phase is None:
            return device
        return device._replace(used_by=None, phase=None, stuck=None)
    if isinstance(device, USBDevice) and device.serial is None and device.inode == record.inode:
        device = device._replace(serial=serial_in(device, record.usb) or None)
    return device._replace(used_by=record.owner, phase=str(record.phase), stuck=record.stuck)
