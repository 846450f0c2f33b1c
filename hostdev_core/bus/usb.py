"""USB devices as sysfs shows them.

What a device calls itself (serial, manufacturer, product) is read under its lock, which a reset or a
disconnect may keep for ever (usb_string_attr in the kernel's drivers/usb/core/sysfs.c): that is read
only of devices that somebody asks for, and nobody waits for it longer than he wants to. The other
attributes that are read here take no lock.
"""

import os
import re
import threading
import time

from hostdev_core.errors import KernelError, KernelTimeoutError
from hostdev_core.kernel.directory import Directory
from hostdev_core.kernel.sysfs import USB_DEVICES, Sysfs
from hostdev_core.model.device import USBDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PORT = re.compile(r"[0-9]+-[0-9]+(?:\.[0-9]+)*", re.A)
_PCI_PART = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NUMBER = re.compile("[0-9]{1,3}")
HUB_CLASS = "09"
PATIENCE = 2.0  # seconds for the texts of all devices together, where they are only shown
NOT_ASKED = "it was not asked what it calls itself"
_PAUSE = 0.1  # without any answer for that long, another thread goes on with the next device
_MOST_THREADS = 64


def list_usb(sysfs: Sysfs) -> list[USBDevice]:
    """All USB devices but hubs, by bus and port, with what they call themselves."""
    return USBTexts(sysfs).fill(see_usb(sysfs), PATIENCE)


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
    inode = devices.inode(port)
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
            controller=controller_of(devices.target(port) or ""),
            inode=inode,
        )
    ]


class _Reading:
    """What one device calls itself, read by whichever thread comes to it."""

    def __init__(self, sysfs: Sysfs, port: str) -> None:
        self.begun = False
        self.done = False
        self._known: tuple[str | None, str] = None, ""
        self._error: str | None = None
        self._sysfs = sysfs
        self._path = f"{USB_DEVICES}/{port}"

    def read(self) -> None:
        try:
            serial, *words = (
                self._sysfs.read(f"{self._path}/{name}")
                for name in ("serial", "manufacturer", "product")
            )
            self._known = serial, " ".join(word or "" for word in words).strip()
        except Exception as error:
            self._error = str(error)

    def give_up(self, reason: str) -> None:
        self.begun = self.done = True
        self._error = reason

    def fill(self, device: USBDevice, seconds: float) -> USBDevice:
        """The device with what is known by now."""
        serial, label = self._known
        late = (
            "it does not answer: the kernel is at work on it and has not returned within"
            f" {seconds:g} s"
        )
        unread = self._error if self.done else late
        return device._replace(serial=serial, label=label, unread=unread)


class USBTexts:
    """Reads what USB devices call themselves, in threads that are left behind when they hang.

    A device that hangs keeps one thread, however often it is asked for.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        self.sysfs = sysfs
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._under_way: dict[tuple[str, int | None], _Reading] = {}

    def fill(self, devices: "Iterable[USBDevice]", seconds: float) -> list[USBDevice]:
        """The devices with serial and label, or with `unread`; all together take `seconds` at most."""
        if self._pid != os.getpid():  # a child of whoever asked before: it has none of the threads
            self._begin()
        wanted = {(device.port, device.inode): device for device in devices}
        end = time.monotonic() + seconds
        threads, answered = 0, False
        with self._changed:
            readings = {
                key: self._under_way.get(key) or _Reading(self.sysfs, key[0]) for key in wanted
            }
            while not all(reading.done for reading in readings.values()):
                if (left := end - time.monotonic()) <= 0:
                    break
                idle = any(not reading.begun for reading in readings.values())
                if idle and not answered and threads < _MOST_THREADS:
                    self._start(readings)
                    threads += 1
                answered = self._changed.wait(min(_PAUSE, left))
            for reading in readings.values():
                reading.begun = True  # nobody waits for the others any more
            return [readings[key].fill(device, seconds) for key, device in wanted.items()]

    def _start(self, readings: "dict[tuple[str, int | None], _Reading]") -> None:
        try:
            threading.Thread(target=self._work, args=(readings,), daemon=True).start()
        except RuntimeError as error:
            for reading in readings.values():
                if not reading.begun:
                    reading.give_up(f"{NOT_ASKED}: {error}")

    def _work(self, readings: "dict[tuple[str, int | None], _Reading]") -> None:
        for key, reading in readings.items():
            with self._changed:
                if reading.begun:
                    continue
                reading.begun = True
                self._under_way[key] = reading
            reading.read()
            with self._changed:
                reading.done = True
                self._under_way.pop(key, None)
                self._changed.notify_all()


def check_answered(sysfs: Sysfs, device: USBDevice, wanted: object = "") -> None:
    """Raise KernelTimeoutError for a device that did not tell what it calls itself.

    `wanted` is what was asked for, which it may be.
    """
    if device.unread is not None:
        may_be = f", which may be {wanted}" if str(wanted) not in {"", device.port} else ""
        what = (
            "try again"
            if device.unread.startswith(NOT_ASKED)
            else "see what the kernel says of it (dmesg); unplug it and plug it in again, and reboot when"
            " that does not help"
        )
        raise KernelTimeoutError(
            f"{device.port}{may_be}: {device.unread}; nothing was changed: {what}",
            path=sysfs.path(f"{USB_DEVICES}/{device.port}/serial"),
            value="",
        )


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
