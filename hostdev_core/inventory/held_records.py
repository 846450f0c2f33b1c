"""What a domain calls the devices that it holds: by their records, not by what is there now.

A USB device that was unplugged or renumbered is still the one that was lent: its record has the port,
the number, the ids and the serial of then.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from hostdev_core.bus.usb import PATIENCE, read_usb
from hostdev_core.bus.usb_identity import is_like
from hostdev_core.errors import KernelError, NotAssignableError
from hostdev_core.inventory.drift import whereabouts
from hostdev_core.model.device import USBDevice
from hostdev_core.model.domain import Hostdev, PCIHostdev, USBHostdev
from hostdev_core.model.record import Record

if TYPE_CHECKING:
    from hostdev_core.host import Host

_USB = re.compile(r"(\d+):(\d+) ([^ :]*):([^ :]*)(?: (.*))?", re.A | re.S)  # USBDevice.identity


def find_held(
    hostdev: Hostdev, records: Iterable[Record], look: Callable[[], Sequence[USBDevice]]
) -> Record | None:
    """The one record that a hostdev means; None when none is meant.

    NotAssignableError, naming the ports, when several match.
    """
    found = matching(hostdev, records, look)
    if len(found) > 1 and isinstance(hostdev, USBHostdev):
        raise _ambiguous(hostdev, [*map(recorded, found)])
    return found[0] if found else None


def matching(
    hostdev: Hostdev, records: Iterable[Record], look: Callable[[], Sequence[USBDevice]]
) -> list[Record]:
    """The records that a hostdev may mean.

    `look` lists the USB devices that are there: a number that nothing had when it was lent may be the
    one that a lent device has got since.
    """
    if isinstance(hostdev, PCIHostdev):
        key = hostdev.kind, str(hostdev.address)
        return [record for record in records if record.key == key]
    lent = [(record, recorded(record)) for record in records if record.kind == "usb"]
    found = [record for record, device in lent if _matches(device, hostdev)]
    if not found and lent and hostdev.device is not None:
        found = _renumbered(hostdev, lent, look())
    return found


def recorded(record: Record) -> USBDevice:
    """A USB device as it was when it was lent."""
    match = _USB.fullmatch(record.usb)
    if match is None:
        return USBDevice(record.address)
    bus, device, vendor, product, serial = match.groups()
    return USBDevice(record.address, int(bus), int(device), vendor, product, serial)


def is_same_usb(then: USBDevice, now: USBDevice | None) -> bool:
    """Whether what is at the port is the device of then, whatever its number."""
    return now is not None and (then.port, then.ids, then.serial or "") == (
        now.port,
        now.ids,
        (now.serial or "").rstrip(),
    )


def find_gone(host: "Host", records: Iterable[Record]) -> dict[str, list[str]]:
    """Of records that have ended: the addresses of devices that are `gone`, `replaced` ones too."""
    found: dict[str, list[str]] = {"gone": [], "replaced": []}
    for record in records:
        where = _where(host, record)
        if where != "there":
            found["gone"].append(record.address)
        if where == "replaced":
            found["replaced"].append(record.address)
    return found


def _where(host: "Host", record: Record) -> str:
    """What is not seen is not gone; a USB device may have come back under another number."""
    try:
        if record.kind == "pci":
            return whereabouts(host, record)
        now = read_usb(host.sysfs, record.address)
        if now is None:
            return "gone"
        return "replaced" if is_like(host.usb_texts, record, now, PATIENCE) is False else "there"
    except KernelError:
        return "there"


def _matches(device: USBDevice, hostdev: USBHostdev) -> bool:
    wanted = hostdev.selector
    if wanted.serial is not None:
        wanted = wanted._replace(serial=wanted.serial.rstrip())  # as the record has it
    return device.matches(wanted)


def _renumbered(
    hostdev: USBHostdev, lent: Iterable[tuple[Record, USBDevice]], present: Sequence[USBDevice]
) -> list[Record]:
    """Those that have the number by now."""
    at = {device.port: device for device in present}
    return [
        record
        for record, then in lent
        if (now := at.get(then.port)) and is_same_usb(then, now) and _matches(now, hostdev)
    ]


def _ambiguous(hostdev: USBHostdev, devices: Sequence[USBDevice]) -> NotAssignableError:
    rows = [f"{d.port} ({d.number}, serial {d.serial or 'none'})" for d in devices]
    return NotAssignableError(
        f"{len(rows)} USB devices that it holds match {hostdev}: {'; '.join(rows)}. Name one by its"
        " port; nothing was given back",
        device=str(hostdev),
        rule="ambiguous-device",
        evidence=rows,
    )
