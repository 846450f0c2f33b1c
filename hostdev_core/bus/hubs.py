"""Recognise USB hubs: they cannot be lent, and a person who asks for one is told so."""

from collections.abc import Iterable
from typing import NamedTuple

from hostdev_core.bus.bus import PATIENCE
from hostdev_core.bus.usb import HUB_CLASS
from hostdev_core.bus.usb_texts import USBTexts
from hostdev_core.errors import DeviceNotFoundError, NotAssignableError
from hostdev_core.kernel.sysfs import USB_DEVICES, Sysfs
from hostdev_core.model.address import USBSelector
from hostdev_core.model.device import USBDevice


class HubError(NotAssignableError, DeviceNotFoundError):
    """A hub was asked for: there is no such device to lend, and what is there cannot be."""


class Hub(NamedTuple):
    """A hub that is there; `port` is "usb1" for the root hub of bus 1."""

    port: str
    bus: str
    device: str
    vendor: str
    product: str

    @property
    def below(self) -> str:
        """The prefix of the ports of all devices that are plugged into it."""
        return f"{self.bus}-" if self.port.startswith("usb") else f"{self.port}."

    def matches(self, wanted: USBSelector) -> bool:
        """Whether all that is given is so; a hub's serial number is not looked at: that takes its lock."""
        mine = (self.port, self.bus, self.device, self.vendor, self.product)
        asked = (wanted.port, wanted.bus, wanted.device, wanted.vendor, wanted.product)
        pairs = zip(asked, mine, strict=True)
        return wanted.serial is None and all(w is None or str(w) == have for w, have in pairs)


def check_no_hub(
    sysfs: Sysfs, texts: USBTexts, wanted: USBSelector, devices: Iterable[USBDevice]
) -> None:
    """Raise HubError for a selector that names a hub, listing those of `devices` plugged into it."""
    hubs = [hub for hub in _hubs(sysfs) if hub.matches(wanted)]
    if not hubs:
        return
    inside = [device for hub in hubs for device in devices if device.port.startswith(hub.below)]
    inside = texts.fill(inside, PATIENCE)  # what they call themselves is for people
    rows = [f"{each.port} ({each.ids}{' ' if each.label else ''}{each.label})" for each in inside]
    more = (
        f"name what is plugged into it: {'; '.join(rows)}" if rows else "nothing is plugged into it"
    )
    names = ", ".join(f"{hub.port} ({hub.vendor}:{hub.product})" for hub in hubs)
    raise HubError(
        f"{wanted} is a USB hub, {names}, and hubs cannot be lent; {more}",
        device=str(wanted),
        rule="hub",
        evidence=rows,
    )


def _hubs(sysfs: Sysfs) -> list[Hub]:
    """List all hubs, by attributes that take no lock."""
    found: list[Hub] = []
    with sysfs.directory(USB_DEVICES) as devices:
        for port in devices.names() if devices else ():
            assert devices is not None
            if ":" not in port and devices.read(f"{port}/bDeviceClass") == HUB_CLASS:
                names = ("busnum", "devnum", "idVendor", "idProduct")
                found.append(Hub(port, *(devices.read(f"{port}/{name}") or "" for name in names)))
    return found
