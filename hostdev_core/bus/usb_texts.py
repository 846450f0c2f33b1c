"""Read the texts of USB devices: serial, manufacturer, product.

The kernel reads them under the device's lock, which a reset or a disconnect may keep for ever
(usb_string_attr in its drivers/usb/core/sysfs.c): they are read only when asked for, in threads, and each
caller says how long it waits.
"""

import os
import threading
import time

from hostdev_core.errors import KernelTimeoutError
from hostdev_core.kernel.sysfs import USB_DEVICES, Sysfs
from hostdev_core.model.device import USBDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NOT_ASKED = "it was not asked what it calls itself"
_PAUSE = 0.1  # without any answer for that long, another thread goes on with the next device
_MOST_THREADS = 64


class _Reading:
    """The reading of one device's texts, by the first thread that comes to it."""

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
        """Add the texts that are known by now to the device, or the reason why they are not."""
        serial, label = self._known
        late = (
            "it does not answer: the kernel is at work on it and has not returned within"
            f" {seconds:g} s"
        )
        unread = self._error if self.done else late
        return device._replace(serial=serial, label=label, unread=unread)


class USBTexts:
    """Reads the texts of USB devices, in threads that are left behind when they hang.

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
        """Add serial and label to devices, or `unread`; all together take `seconds` at most."""
        if (
            self._pid != os.getpid()
        ):  # forked from a process that has asked: its threads are not here
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
                reading.begun = True  # those not begun are not read any more: the caller goes on
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
    """Raise KernelTimeoutError for a device whose texts could not be read.

    `wanted` is the selector of the request, which the device may match; it is for the message.
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
