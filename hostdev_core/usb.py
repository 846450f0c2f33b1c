"""USB devices as sysfs shows them."""

import re
from typing import NamedTuple

from hostdev_core.address import USBSelector
from hostdev_core.owner import UsedBy
from hostdev_core.sysfs import USB_DEVICES, Directory, Sysfs

PORT = re.compile(r"[0-9]+-[0-9]+(?:\.[0-9]+)*", re.A)
_PCI_PART = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NUMBER = re.compile("[0-9]{1,3}")
HUB_CLASS = "09"


class USBDevice(NamedTuple):
    """A USB device that is there; root hubs, hubs and interfaces are none.

    `bus` and `device` are numbers that change at a replug, `port` names the socket. `controller` is
    the PCI address of the controller, None for one that is not on PCI. `asked` is what a hostdev named
    it by, in an Assignment and for a backend's `arguments`; None elsewhere.
    """

    port: str
    bus: int = 0
    device: int = 0
    vendor: str = ""
    product: str = ""
    serial: str | None = None
    label: str = ""
    controller: str | None = None
    used_by: UsedBy | None = None
    phase: str | None = None
    stuck: str | None = None
    asked: USBSelector | None = None

    @property
    def kind(self) -> str:
        """What names its kind in the ledger."""
        return "usb"

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.port

    @property
    def number(self) -> str:
        """Bus and device number, "001:020"."""
        return f"{self.bus:03}:{self.device:03}"

    @property
    def ids(self) -> str:
        """Vendor and product, "046d:c077"."""
        return f"{self.vendor}:{self.product}"

    @property
    def node(self) -> str:
        """Its node in /dev: "dev/bus/usb/001/020"."""
        return f"dev/bus/usb/{self.bus:03}/{self.device:03}"

    @property
    def identity(self) -> str:
        """What tells that it is still the same: number, ids and serial."""
        return f"{self.number} {self.ids} {self.serial or ''}".rstrip()

    def matches(self, wanted: USBSelector) -> bool:
        """Whether all that is given is so."""
        mine = (self.port, self.bus, self.device, self.vendor, self.product, self.serial)
        return all(want is None or want == have for want, have in zip(wanted, mine, strict=True))


def list_usb(sysfs: Sysfs) -> list[USBDevice]:
    """All USB devices but hubs, by bus and port."""
    found: list[USBDevice] = []
    with sysfs.directory(USB_DEVICES) as devices:
        for port in devices.names() if devices else ():
            if PORT.fullmatch(port) and devices is not None:
                found += _read(devices, port)
    found.sort(key=lambda device: (device.bus, device.port))
    return found


def read_usb(sysfs: Sysfs, port: str) -> USBDevice | None:
    """The USB device at a port; None for none, or a hub."""
    with sysfs.directory(USB_DEVICES) as devices:
        found = _read(devices, port) if devices is not None and PORT.fullmatch(port) else []
    return found[0] if found else None


def _read(devices: Directory, port: str) -> list[USBDevice]:
    bus, number = devices.read(f"{port}/busnum") or "", devices.read(f"{port}/devnum") or ""
    if (
        not (_NUMBER.fullmatch(bus) and _NUMBER.fullmatch(number))
        or devices.read(f"{port}/bDeviceClass") == HUB_CLASS
    ):
        return []
    label = " ".join(devices.read(f"{port}/{name}") or "" for name in ("manufacturer", "product"))
    return [
        USBDevice(
            port,
            int(bus),
            int(number),
            devices.read(f"{port}/idVendor") or "",
            devices.read(f"{port}/idProduct") or "",
            devices.read(f"{port}/serial"),
            label.strip(),
            controller_of(devices.target(port) or ""),
        )
    ]


def controller_of(target: str) -> str | None:
    """The PCI address of the controller that a USB device's path in sysfs leads through."""
    parts = [part for part in target.split("/") if _PCI_PART.fullmatch(part)]
    return parts[-1] if parts else None
