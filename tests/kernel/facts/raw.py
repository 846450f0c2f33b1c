"""Raw writes and reads below /sys, which answer "ok", a text, or the errno's name."""

import errno

from hostdev_core.errors import KernelError
from hostdev_core.kernel.sysfs import Sysfs


def write(sysfs: Sysfs, path: str, value: str) -> str:
    """Write and say "ok" or the errno's name."""
    try:
        sysfs.write(path, value)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def read(sysfs: Sysfs, path: str) -> str | None:
    """Read and return the text, or the errno's name."""
    try:
        return sysfs.read(path)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]


def seen(sysfs: Sysfs, path: str) -> str:
    """Whether a part of the sysfs is there ("ok"), or the errno's name."""
    try:
        sysfs.check_seen(path)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def of_device(device: str, name: str) -> str:
    return f"bus/pci/devices/{device}/{name}"


def of_driver(driver: str, name: str) -> str:
    return f"bus/pci/drivers/{driver}/{name}"


def bound(sysfs: Sysfs, device: str) -> str | None:
    return sysfs.link(of_device(device, "driver"))


def send_home(sysfs: Sysfs, device: str, driver: str) -> str:
    """Unset the override and bind the host driver."""
    write(sysfs, of_device(device, "driver/unbind"), device)
    write(sysfs, of_device(device, "driver_override"), "\n")
    return write(sysfs, of_driver(driver, "bind"), device)
