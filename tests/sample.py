"""The machines that most tests use, their addresses, and a connection to one.

`make_host` makes a small one; `make_sample` of hostdev_core.simulated has more devices, with these addresses
but for the disk.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hostdev_libxl
import hostdev_qemu
from hostdev_core import Connection, HostdevDriver, Registry, hookimpl, open_connection
from hostdev_core.simulated import SimulatedHost

NIC = "0000:01:00.0"
DISK = OTHER = "0000:02:00.0"  # the sample has a second network card there
GPU, SOUND = "0000:03:00.0", "0000:03:00.1"  # in one IOMMU group
MOUSE, STICK = "1-1", "1-3"
QEMU, XEN = "qemu:///system", "xen:///system"


def make_host(folder: Path) -> SimulatedHost:
    """A network card and a disk, each in a group of its own."""
    host = SimulatedHost.create(folder)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(DISK, id="144d:a808", class_="010802", kernel_driver="nvme", iommu_group=2)
    return host


def add_pair(host: SimulatedHost) -> None:
    """Add GPU and SOUND without a host driver: neither keeps the other from being lent alone."""
    for address in (GPU, SOUND):
        host.add_pci(address, id="8086:0001", iommu_group=3)


def driver_of(host: SimulatedHost, address: str) -> object:
    return host.snapshot()[address]["kernel_driver"]


class Brings:
    """A plugin that brings these drivers."""

    def __init__(self, *drivers: HostdevDriver) -> None:
        self.drivers = drivers

    @hookimpl
    def hostdev_drivers(self) -> Sequence[HostdevDriver]:
        return self.drivers


def registered(driver: HostdevDriver) -> Registry:
    """A registry of this driver alone."""
    registry = Registry()
    registry.register(Brings(driver), name="mine")
    return registry


def make_registry(*plugins: object) -> Registry:
    """Register the driver for QEMU, and then these plugins."""
    registry = Registry()
    registry.register(hostdev_qemu, name="qemu")
    for plugin in plugins:
        registry.register(plugin)
    return registry


def connect(host: SimulatedHost, *plugins: object, uri: str = QEMU, **options: Any) -> Connection:
    """Connect with the drivers for QEMU and Xen, and then these plugins, in a registry of its own."""
    registry = make_registry()
    registry.register(hostdev_libxl, name="libxl")
    for plugin in plugins:
        registry.register(plugin)
    return open_connection(uri, host=host, registry=registry, **options)


def connect_xen(host: SimulatedHost) -> Connection:
    """Connect to Xen's control domain, as another process does."""
    return connect(SimulatedHost.open(host.root), uri=XEN)


def connect_driver(
    driver: HostdevDriver, host: SimulatedHost, *plugins: object, **options: Any
) -> Connection:
    """Connect to "mine:///system" with this driver alone, and these plugins."""
    registry = Registry()
    registry.register(Brings(driver), name=driver.name)
    for plugin in plugins:
        registry.register(plugin)
    return open_connection("mine:///system", host=host, registry=registry, **options)
