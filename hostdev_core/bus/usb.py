"""USB devices as sysfs shows them, and their bus. No attribute that is read here takes a lock."""

import re

from hostdev_core.bus.bus import PATIENCE, Bus
from hostdev_core.bus.usb_records import find_usb_records, recorded_usb
from hostdev_core.bus.usb_texts import USBTexts, check_answered
from hostdev_core.errors import InvalidAddressError, KernelError, StateError
from hostdev_core.kernel.directory import Directory
from hostdev_core.kernel.sysfs import USB_DEVICES, Sysfs
from hostdev_core.model.address import USBSelector, quoted
from hostdev_core.model.device import USBDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from hostdev_core.model.device import Device
    from hostdev_core.model.domain import USBHostdev
    from hostdev_core.model.record import Record

PORT = re.compile(r"[0-9]+-[0-9]+(?:\.[0-9]+)*", re.A)
_PCI_PART = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NUMBER = re.compile("[0-9]{1,3}")
HUB_CLASS = "09"
_CLAIMED = "usbfs"  # the driver of an interface that a process has, drivers/usb/core/devio.c


def see_usb(sysfs: Sysfs, *, tolerant: bool = False) -> list[USBDevice]:
    """All USB devices but hubs, by bus and port; nothing that takes a device's lock is read.

    With `tolerant` a device that cannot be seen is left out; otherwise KernelError.
    """
    found: list[USBDevice] = []
    with sysfs.directory(USB_DEVICES) as devices:
        if not tolerant:
            sysfs.check_bus(USB_DEVICES)
        for port in devices.names() if devices else ():
            if PORT.fullmatch(port) and devices is not None:
                try:
                    found += _read(devices, port)
                except KernelError:
                    if not tolerant:
                        raise
    found.sort(key=lambda device: (device.bus, device.port))
    return found


def read_usb(sysfs: Sysfs, port: str) -> USBDevice | None:
    """The USB device at a port; None for none, or a hub. KernelError where that cannot be seen."""
    with sysfs.directory(USB_DEVICES) as devices:
        found = _read(devices, port) if devices is not None and PORT.fullmatch(port) else []
    if not found:
        sysfs.check_bus(USB_DEVICES)
    return found[0] if found else None


def _read(devices: Directory, port: str) -> list[USBDevice]:
    inode, target = devices.place(port)
    bus, number = devices.read(f"{port}/busnum") or "", devices.read(f"{port}/devnum") or ""
    if (
        inode is None
        or not (_NUMBER.fullmatch(bus) and _NUMBER.fullmatch(number))
        or devices.read(f"{port}/bDeviceClass") == HUB_CLASS
    ):
        return []
    return [
        USBDevice(
            port,
            int(bus),
            int(number),
            devices.read(f"{port}/idVendor") or "",
            devices.read(f"{port}/idProduct") or "",
            controller=controller_of(target or ""),
            inode=inode,
        )
    ]


def serial_in(device: USBDevice, identity: str) -> str | None:
    """The serial in an identity, "" for none; None where it is another device's for certain."""
    known = f"{device.number} {device.ids}"
    if identity != known.rstrip() and not identity.startswith(f"{known} "):
        return None
    return identity[len(known) + 1 :]


def controller_of(target: str) -> str | None:
    """The PCI address of the controller that a USB device's path in sysfs leads through."""
    parts = [part for part in target.split("/") if _PCI_PART.fullmatch(part)]
    return parts[-1] if parts else None


class USB(Bus):
    """The USB bus: a device is lent whole, by its node, and nothing is written for it.

    It is known by its directory in sysfs. Where that is another one (it was plugged in again), or was not
    recorded (by an older hostdev), its ids and its serial tell, which is read only then, and within a time.
    """

    kind = "usb"
    folder = USB_DEVICES

    def __init__(self, sysfs: Sysfs) -> None:
        super().__init__(sysfs)
        self.texts = USBTexts(sysfs)

    def devices(self, *, tolerant: bool = False) -> "Mapping[str, Device]":
        return {device.port: device for device in see_usb(self.sysfs, tolerant=tolerant)}

    def read(self, name: str) -> USBDevice | None:
        return read_usb(self.sysfs, name)

    def absent(self, name: str) -> USBDevice:
        return USBDevice(name)

    def parse(self, text: str) -> str | None:
        try:
            selector = USBSelector.parse(text)
        except InvalidAddressError:
            return None
        if selector.port is None:
            raise InvalidAddressError(
                f"{quoted(text)} names no record; name the USB device by its port"
            )
        return selector.port

    def told_of(self, name: str) -> str | None:
        port = name.partition(":")[0]  # an interface, "1-1:1.0", is a part of its device
        return port if PORT.fullmatch(port) else None

    def describe(self, devices: "Mapping[str, Any]", seconds: float) -> "Mapping[str, Device]":
        asked = self.texts.fill(devices.values(), seconds) if devices else []
        return {device.port: device for device in asked}

    def check_seen(self) -> None:
        self.sysfs.check_bus(self.folder)

    def present(self) -> "Mapping[str, Device]":
        return self.devices()

    def identify(self, record: "Record", now: "Device | None", seconds: float = PATIENCE) -> str:
        """By inode, or by ids and serial; "replugged" is the same device under another number."""
        if not isinstance(now, USBDevice):
            return "gone"
        if self._is_like(record, now, seconds) is False:
            return "replaced"
        return "there" if has_number(record, now) else "replugged"

    def identify_present(self, record: "Record") -> str:
        return self.identify(record, self.read(record.address))

    def owns_place(self, record: "Record") -> bool:
        """By the record alone: a device that came back to its port keeps its place."""
        return True

    def check_answers(self, record: "Record", now: "Device", seconds: float) -> None:
        if isinstance(now, USBDevice):
            self._is_same(record, now, seconds)

    def check_there(self, record: "Record", seconds: float) -> None:
        usb = self.read(record.address)
        if not (usb and self._is_same(record, usb, seconds)):
            raise StateError(
                f"{record.address} was unplugged or replaced meanwhile: it was {record.usb}, and is"
                f" {usb.identity if usb else 'nothing'} now; try again"
            )

    def drift(self, record: "Record", now: "Device | None") -> "list[tuple[str, str]]":
        from hostdev_core.model.words import ends, replug_words  # here: a listing needs none of it

        where = self.identify(record, now)
        if where == "there":
            return []
        way = ends(record)
        if where == "replugged":
            # For its own domain that is another device: its guest may have lost the one that it had.
            where, way = "replaced", replug_words(record)
        told = "nothing"
        if isinstance(now, USBDevice):
            told = self.texts.fill([now], PATIENCE)[0].identity
        return [(where, f"lent as {record.usb}, now {told}; {way}")]

    def place(self, device: USBDevice) -> "dict[str, Any]":
        return {"controller": device.controller}

    def recall(self, device: USBDevice, record: "Record") -> USBDevice:
        """Add the recorded serial, which a look does not read."""
        if device.serial is None and device.inode == record.inode:
            return device._replace(serial=serial_in(device, record.usb) or None)
        return device

    def find_records(
        self,
        hostdev: "USBHostdev",
        records: "Iterable[Record]",
        look: "Callable[[], Sequence[Device]]",
    ) -> "list[Record]":
        """Find records by the port, number, ids and serial that each device had when it was lent.

        A number that matches none of these may be the one that a lent device got since, at a replug.
        """

        return find_usb_records(hostdev, records, look)

    def told(self, record: "Record") -> str:
        device = recorded_usb(record)
        return f"{device.port} ({device.number}, serial {device.serial or 'none'})"

    def node(self, device: USBDevice) -> str:
        return device.node

    def claims(self, device: USBDevice) -> "list[str]":
        """The interfaces that usbfs has claimed for a process, such as a guest's QEMU."""
        path = self.path(device.port)
        return [
            f"interface {name} is claimed"
            for name in self.sysfs.names(path)
            if ":" in name and self.sysfs.link(f"{path}/{name}/driver") == _CLAIMED
        ]

    def lent(self, device: USBDevice, hostdev: "USBHostdev") -> USBDevice:
        """Add the selector of the hostdev, for a hypervisor that follows a port or ids."""
        return device._replace(asked=hostdev.selector)

    def _is_like(self, record: "Record", device: USBDevice, seconds: float) -> bool | None:
        """Whether a device has the ids and the serial of a record's, under any number.

        None when it does not answer within so many seconds: it may be.
        """
        if record.inode is not None and record.inode == device.inode:
            return True
        ids, _, serial = record.usb.partition(" ")[2].partition(" ")
        if ids != device.ids:
            return False
        (asked,) = self.texts.fill([device], seconds)
        return None if asked.unread else (asked.serial or "").rstrip() == serial

    def _is_same(self, record: "Record", device: USBDevice, seconds: float) -> bool:
        """Whether a device is the record's, under the same number.

        Raises KernelTimeoutError when that hangs on a device that does not answer.
        """
        if not has_number(record, device):
            return False
        like = self._is_like(record, device, seconds)
        if like is None:
            check_answered(self.sysfs, device._replace(unread="it does not answer in time"))
        return bool(like)


def has_number(record: "Record", device: USBDevice) -> bool:
    """Whether a device has the number that a record's had; it gets another one at a replug."""
    return record.usb.partition(" ")[0] == device.number
