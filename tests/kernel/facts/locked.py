"""A USB or PCI device whose lock somebody keeps: which of its attributes can be read meanwhile."""

import threading
import time

from hostdev_core.kernel.sysfs import Sysfs

from .fact import LOCKED_PCI_FACTS, LOCKED_USB_FACTS, fact
from .raw import of_device

PATIENCE, SOON = 60.0, 1.0
"""Seconds for what answers on a busy machine, and for what is known to wait."""


def answer(sysfs: Sysfs, paths: list[str], seconds: float) -> list[str]:
    """Which of these attributes are read within so many seconds; the readers of the others wait on."""
    done: list[str] = []

    def look(path: str) -> None:
        sysfs.read(path)
        done.append(path.rpartition("/")[2])

    threads = [threading.Thread(target=look, args=[path], daemon=True) for path in paths]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return sorted(done)


def of_usb(port: str, *names: str) -> list[str]:
    return [f"bus/usb/devices/{port}/{name}" for name in names]


@fact(
    "bDeviceClass",
    "busnum",
    "dev",
    "devnum",
    "devpath",
    "idProduct",
    "idVendor",
    of=LOCKED_USB_FACTS,
)
def a_locked_usb_device_tells_who_it_is(sysfs: Sysfs, port: str) -> list[object]:
    names = ("idVendor", "idProduct", "busnum", "devnum", "devpath", "dev", "bDeviceClass")
    return [*answer(sysfs, of_usb(port, *names), PATIENCE)]


@fact(of=LOCKED_USB_FACTS)
def a_locked_usb_device_does_not_tell_its_texts(sysfs: Sysfs, port: str) -> list[object]:
    names = ("serial", "product", "manufacturer", "bConfigurationValue")
    return [*answer(sysfs, of_usb(port, *names), SOON)]


@fact("usb", True, True, of=LOCKED_USB_FACTS)
def a_locked_usb_device_has_its_links_and_its_interfaces(sysfs: Sysfs, port: str) -> list[object]:
    device = f"bus/usb/devices/{port}"
    inner = [name for name in sysfs.names(device) if name.startswith(f"{port}:")]
    return [
        sysfs.link(f"{device}/driver"),
        bool(inner),
        all(sysfs.read(f"{device}/{name}/bInterfaceClass") for name in inner),
    ]


@fact("class", "device", "modalias", "vendor", of=LOCKED_PCI_FACTS)
def a_locked_pci_device_tells_who_it_is(sysfs: Sysfs, device: str) -> list[object]:
    names = ("vendor", "device", "class", "modalias")
    return [*answer(sysfs, [of_device(device, name) for name in names], PATIENCE)]


@fact(of=LOCKED_PCI_FACTS, since=(6, 12), newer=("driver_override",))
def a_locked_pci_device_does_not_tell_its_override(sysfs: Sysfs, device: str) -> list[object]:
    """Newer kernels do (6.12.117; when it began is not known): they read it without the device's lock."""
    return [*answer(sysfs, [of_device(device, "driver_override")], SOON)]
