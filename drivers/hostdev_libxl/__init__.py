"""Xen's libxl: devices on pciback; `xen:///system`."""

from hostdev_core import HostdevDriver, hookimpl
from hostdev_libxl.driver import LibxlDriver as LibxlDriver


@hookimpl
def hostdev_drivers() -> list[HostdevDriver]:
    """Return the driver for Xen."""
    return [LibxlDriver()]
