"""A device of the simulated kernel: its directory below sys/devices, and the lock on it."""

import errno
import os
import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, NoReturn

from hostdev_core.errors import InputError
from hostdev_core.simulated.kernel.disk import Disk, last_part, names, read, read_bytes
from hostdev_core.simulated.kernel.drivers import Ids
from hostdev_core.simulated.kernel.locks import is_locked, locked

UNSET = "(null)\n"
_NAME = re.compile(r"[0-9a-z:.-]+")


class Device(NamedTuple):
    """A device from its plugging in to its removal: after a replug it is another, with another inode."""

    name: str
    path: str
    inode: int

    @property
    def driver(self) -> str | None:
        """The driver that the link in its directory names."""
        return last_part(f"{self.path}/driver")

    @property
    def group(self) -> str | None:
        """The number of its IOMMU group; None without one."""
        return last_part(f"{self.path}/iommu_group")

    @property
    def ids(self) -> Ids:
        """The ids that drivers are matched with; a damaged `modalias` matches no driver's."""
        try:
            return Ids.of_modalias(read(f"{self.path}/modalias") or "")
        except ValueError:
            return Ids(-1, -1)

    @property
    def override(self) -> str | None:
        """Its `driver_override`; None when unset."""
        text = read(f"{self.path}/driver_override")
        return None if text is None or text == UNSET else text[:-1]

    @property
    def header_type(self) -> int:
        """The header type in its configuration space; 0x7F where there is none."""
        config = read_bytes(f"{self.path}/config", 64) or b""
        return config[14] & 0x7F if len(config) > 14 else 0x7F

    @property
    def is_there(self) -> bool:
        """Tell whether it is still plugged in."""
        try:
            return os.stat(self.path).st_ino == self.inode
        except OSError:
            return False


def fail(number: int) -> NoReturn:
    """Raise the OSError of a write that the kernel refuses."""
    raise OSError(number, os.strerror(number))


def find_device(disk: Disk, name: str, bus: str = "pci") -> Device | None:
    """Find the device of this name on a bus; None when there is none."""
    if not _NAME.fullmatch(name):  # it comes from a write, and becomes a part of a path
        return None
    try:
        # Without realpath(3): the link is "../../../devices/...", and one call less for each device.
        path = f"{disk.sys}/{os.readlink(f'{disk.sys}/bus/{bus}/devices/{name}').lstrip('./')}"
        return Device(name, path, os.stat(path).st_ino)
    except OSError:
        return None


@contextmanager
def locked_device(device: Device) -> Generator[None, None, None]:
    """Hold the device's lock; ENODEV when the device went while this waited for it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(device.path, create=False))
        except FileNotFoundError:
            fail(errno.ENODEV)
        if not device.is_there:
            fail(errno.ENODEV)
        yield


@contextmanager
def hold_lock(disk: Disk, name: str) -> Generator[None, None, None]:
    """Hold the lock of a PCI or USB device; InputError when there is none."""
    device = find_device(disk, name) or find_device(disk, name, "usb")
    if device is None:
        raise InputError(f"{name} is not plugged in")
    with locked_device(device):
        yield


def current_driver(disk: Disk, device: Device) -> str | None:
    """The kernel's `dev->driver`, which is set also while a driver's probe or remove runs."""
    if driver := device.driver:
        return driver
    # Without the lock the link is a killed process's, and no probe or remove runs.
    driver = last_part(busy_link(disk, device))
    return driver if driver and is_locked(device.path) else None


def busy_link(disk: Disk, device: Device) -> str:
    """The link to the driver whose probe or remove runs.

    One that exists while the device's lock is free was left by a process that was killed.
    """
    return f"{disk.memory}/busy/{device.inode}"


def open_lock(disk: Disk, device: Device) -> str:
    """The lock file of a device: locked by each process that has it open through VFIO."""
    return f"{disk.memory}/open/{device.inode}"


def members(disk: Disk, group: str) -> list[Device]:
    """List the devices of an IOMMU group."""
    found = (
        find_device(disk, name) for name in names(f"{disk.sys}/kernel/iommu_groups/{group}/devices")
    )
    return [device for device in found if device]
