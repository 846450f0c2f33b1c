"""QEMU and KVM: devices on vfio-pci or one of its variants; `qemu:///system`."""

from hostdev_core import HostdevDriver, hookimpl
from hostdev_qemu.driver import QemuDriver as QemuDriver


@hookimpl
def hostdev_drivers() -> list[HostdevDriver]:
    """Return the driver for QEMU."""
    return [QemuDriver()]
