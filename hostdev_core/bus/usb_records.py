"""Find the records of USB devices that a hostdev means, by the port, number, ids and serial of each then."""

import re
from collections.abc import Callable, Iterable, Sequence

from hostdev_core.model.device import Device, USBDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.model.domain import USBHostdev
    from hostdev_core.model.record import Record

_IDENTITY = re.compile(
    r"(\d+):(\d+) ([^ :]*):([^ :]*)(?: (.*))?", re.A | re.S
)  # USBDevice.identity


def find_usb_records(
    hostdev: "USBHostdev", records: "Iterable[Record]", look: Callable[[], Sequence[Device]]
) -> "list[Record]":
    """Find the records that a hostdev may mean; `look` lists the USB devices that are there now."""
    lent = [(record, recorded_usb(record)) for record in records if record.kind == "usb"]
    found = [record for record, device in lent if _matches(device, hostdev)]
    if not found and lent and hostdev.device is not None:
        found = _renumbered(hostdev, lent, look())
    return found


def recorded_usb(record: "Record") -> USBDevice:
    """Make the USB device of a record, as it was when it was lent."""
    match = _IDENTITY.fullmatch(record.usb)
    if match is None:
        return USBDevice(record.address)
    bus, device, vendor, product, serial = match.groups()
    return USBDevice(record.address, int(bus), int(device), vendor, product, serial)


def _was(then: USBDevice, now: USBDevice | None) -> bool:
    """Whether a device now is the one of then, by port, ids and serial; its number may have changed."""
    return now is not None and (then.port, then.ids, then.serial or "") == (
        now.port,
        now.ids,
        (now.serial or "").rstrip(),
    )


def _matches(device: USBDevice, hostdev: "USBHostdev") -> bool:
    wanted = hostdev.selector
    if wanted.serial is not None:
        wanted = wanted._replace(serial=wanted.serial.rstrip())  # as the record has it
    return device.matches(wanted)


def _renumbered(
    hostdev: "USBHostdev",
    lent: "Iterable[tuple[Record, USBDevice]]",
    present: "Sequence[Device]",
) -> "list[Record]":
    """The records of devices that a hostdev matches by the numbers that they have now."""
    at = {device.name: device for device in present if isinstance(device, USBDevice)}
    return [
        record
        for record, then in lent
        if (now := at.get(then.port)) and _was(then, now) and _matches(now, hostdev)
    ]
