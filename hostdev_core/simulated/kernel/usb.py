"""USB devices come and go: buses below their controller, devices, interfaces, nodes.

Plugged devices are remembered: they appear again when the controller is back on its host driver.
"""

import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple, cast

from hostdev_core.errors import InputError
from hostdev_core.simulated.kernel import late
from hostdev_core.simulated.kernel.device import Device, fail, find_device
from hostdev_core.simulated.kernel.disk import Disk, last_part, link, make, names, unlink
from hostdev_core.simulated.kernel.events import note_event

_MEMORY = "usb"
HID, HUB = "03", "09"
CLAIMED = "usbfs"  # the driver of interfaces that a process has claimed, drivers/usb/core/devio.c
PLATFORM = "platform"  # stands for a controller that is not on PCI


class Plug(NamedTuple):
    """A USB device as it is plugged in; the fields are those of `SimulatedHost.add_usb`."""

    port: str
    id: str
    bus: int
    device: int
    serial: str | None
    product: str | None
    manufacturer: str | None
    controller: str
    interfaces: dict[str, str | None]
    hub: bool

    @property
    def number(self) -> str:
        """The number of its node (Documentation/admin-guide/devices.txt, 189 char)."""
        return f"189:{(self.bus - 1) * 128 + self.device - 1}"

    @property
    def inner(self) -> dict[str, str | None]:
        """The names of its interfaces ("1-1:1.0"), each with its driver."""
        port = f"{self.bus}-0" if self.port.startswith("usb") else self.port
        return {f"{port}:{name}": driver for name, driver in self.interfaces.items()}

    @property
    def parent(self) -> str:
        """The hub that it is plugged into, perhaps the root hub."""
        return self.port.rpartition(".")[0] or f"usb{self.bus}"


def plugged(disk: Disk) -> dict[str, Plug]:
    """Read the plugged devices, by port; each hub comes before the devices on it."""
    known = cast("dict[str, list[object]]", disk.recall(_MEMORY))
    return {port: Plug(*fields) for port, fields in known.items()}  # type: ignore[arg-type]


def plug(disk: Disk, new: Plug) -> None:
    """Plug in a device, with its root hub and the hubs between where they are missing."""
    with disk.kernel_lock():
        known = plugged(disk)
        if new.port in known:
            raise InputError(f"USB port {new.port} is taken already; unplug it first")
        if any((one.bus, one.device) == (new.bus, new.device) for one in known.values()):
            number = f"{new.bus:03}:{new.device:03}"
            raise InputError(f"USB number {number} is taken already; {new.port} needs another")
        missing = [new]
        # From the device up to the root hub, or to a hub that is there.
        while not missing[0].port.startswith("usb") and missing[0].parent not in known:
            missing.insert(0, _hub(known, missing))
        disk.remember(_MEMORY, known | {each.port: each for each in missing})
    for each in missing:
        _appear(disk, each)


def unplug(disk: Disk, port: str) -> bool:
    """Pull a device out, with all devices on it; False when there is none."""
    with disk.kernel_lock():
        known = plugged(disk)
        gone = [one for one in known.values() if (one.port + ".").startswith(port + ".")]
        disk.remember(_MEMORY, {key: one for key, one in known.items() if one not in gone})
    for one in reversed(gone):
        _disappear(disk, one)
    return bool(gone)


def settle_buses(disk: Disk, controller: str, present: bool) -> None:
    """Make or remove the buses of a controller; the plugged devices stay remembered."""
    mine = [one for one in plugged(disk).values() if one.controller == controller]
    for one in mine if present else reversed(mine):  # hubs appear first and go last
        there = os.path.lexists(f"{disk.sys}/bus/usb/devices/{one.port}")
        if present and not there:
            _appear(disk, one)
        elif there and not present:
            _disappear(disk, one)


def forget_controller(disk: Disk, controller: str) -> None:
    """Forget the devices on a controller that is gone itself."""
    if not any(one.controller == controller for one in plugged(disk).values()):
        return
    settle_buses(disk, controller, present=False)
    with disk.kernel_lock():
        left = {key: one for key, one in plugged(disk).items() if one.controller != controller}
        disk.remember(_MEMORY, left)


def next_number(disk: Disk, port: str) -> int:
    """Choose the number for a device at this port: after its bus's others and the hubs still to add."""
    bus, _, path = port.partition("-")
    known = plugged(disk).values()
    last = max((one.device for one in known if one.bus == int(bus)), default=1)
    ports = {one.port for one in known}
    parts = path.split(".")
    hubs = (f"{bus}-{'.'.join(parts[:end])}" for end in range(1, len(parts)))
    return last + 1 + sum(hub not in ports for hub in hubs)


@contextmanager
def claimed(disk: Disk, port: str) -> Generator[None, None, None]:
    """Claim a device as a running QEMU does: its interfaces are on usbfs, and afterwards as before."""
    former = {name: driver for name, driver in interface_drivers(disk).items() if driver}
    mine = [each for each in interface_drivers(disk) if each.startswith(f"{port}:")]
    if not mine:
        fail(errno.ENODEV)
    if any(former.get(name) == CLAIMED for name in mine):
        fail(errno.EBUSY)
    for name in mine:
        _change_driver(disk, name, CLAIMED)
    try:
        yield
    finally:
        for name in mine:
            _change_driver(disk, name, cast("str | None", former.get(name)))


def _change_driver(disk: Disk, name: str, driver: str | None) -> None:
    device = find_device(disk, name, "usb")
    if device is None:  # pulled meanwhile
        return
    if device.driver:
        unbind_interface(disk, device.driver, name)
    if driver:
        _set_driver(disk, device.path, name, driver)
        note_event(disk, "bind", "usb", name)


def bind_interface(disk: Disk, driver: str, name: str) -> None:
    """Carry out a write to a USB driver's `bind`."""
    device = find_device(disk, name, "usb")
    if device is None or ":" not in name or driver == CLAIMED:  # usbfs binds by ioctl(2) only
        fail(errno.ENODEV)
    if device.driver:
        fail(errno.EBUSY)
    _set_driver(disk, device.path, name, driver)
    note_event(disk, "bind", "usb", name)


def unbind_interface(disk: Disk, driver: str, name: str) -> None:
    """Carry out a write to a USB driver's `unbind`."""
    device = find_device(disk, name, "usb")
    if device is None or device.driver != driver:
        fail(errno.ENODEV)
    unlink(f"{disk.sys}/bus/usb/drivers/{driver}/{name}")
    unlink(f"{device.path}/driver")
    note_event(disk, "unbind", "usb", name)


def _hub(known: dict[str, Plug], missing: list[Plug]) -> Plug:
    """Make the hub, perhaps a root hub, that the first of these devices is plugged into."""
    below = missing[0]
    inside: dict[str, str | None] = {"1.0": "hub"}
    if below.parent.startswith("usb"):
        # hcd.c: a root hub's serial is the name of its controller.
        return Plug(below.parent, "1d6b:0002", below.bus, 1, below.controller, "xHCI Controller",
                    "Linux xhci-hcd", below.controller, inside, True)  # fmt: skip
    taken = {one.device for one in [*known.values(), *missing] if one.bus == below.bus}
    number = next(number for number in count(2) if number not in taken)
    return Plug(below.parent, "05e3:0608", below.bus, number, None, "USB2.0 Hub", None,
                below.controller, inside, True)  # fmt: skip


def _appear(disk: Disk, new: Plug) -> None:
    parent = _parent(disk, new)
    if parent is None:  # its controller is off the host's driver: it appears with that
        return
    path = f"{parent.path}/{new.port}"
    disk.bury(path)  # a killed process may have left it half made
    _make_folder(disk, path, _attributes(new))
    for name in new.inner:
        _make_folder(disk, f"{path}/{name}", _interface_attributes(new, name))
    _set_driver(disk, path, new.port, "usb")
    for name, driver in new.inner.items():
        if driver:
            _set_driver(disk, f"{path}/{name}", name, driver)
    os.makedirs(os.path.dirname(_node(disk, new)), exist_ok=True)
    unlink(_node(disk, new))  # left by a process that was killed on the way out
    late.make_node(disk, _node(disk, new), 0o664)
    os.makedirs(f"{disk.root}/dev/char", exist_ok=True)
    link(_node(disk, new), f"{disk.root}/dev/char/{new.number}")
    note_event(disk, "add", "usb", new.port)


def _make_folder(disk: Disk, path: str, attributes: dict[str, str]) -> None:
    os.makedirs(path)
    for name, text in attributes.items():
        make(f"{path}/{name}", f"{text}\n", 0o444)
    link(f"{disk.sys}/bus/usb", f"{path}/subsystem")
    link(path, f"{disk.sys}/bus/usb/devices/{os.path.basename(path)}")


def _disappear(disk: Disk, old: Plug) -> None:
    for name in (*old.inner, old.port):
        device = find_device(disk, name, "usb")
        unlink(f"{disk.sys}/bus/usb/devices/{name}")
        if device:
            unlink(f"{disk.sys}/bus/usb/drivers/{device.driver}/{name}")
            disk.bury(device.path)
    late.drop(disk, _node(disk, old))
    unlink(_node(disk, old))
    unlink(f"{disk.root}/dev/char/{old.number}")
    note_event(disk, "remove", "usb", old.port)


def _parent(disk: Disk, new: Plug) -> Device | None:
    if new.port.startswith("usb") and new.controller == PLATFORM:
        path = f"{disk.sys}/devices/platform/usb-host"
        os.makedirs(path, exist_ok=True)
        return Device(PLATFORM, path, os.stat(path).st_ino)
    if new.port.startswith("usb"):
        return find_device(disk, new.controller)
    return find_device(disk, new.parent, "usb")


def _set_driver(disk: Disk, path: str, name: str, driver: str) -> None:
    folder = f"{disk.sys}/bus/usb/drivers/{driver}"
    if not os.path.exists(folder):
        os.makedirs(folder, exist_ok=True)
        for attribute in ("bind", "unbind"):
            disk.put(f"{folder}/{attribute}", "", 0o200)
    link(folder, f"{path}/driver")
    link(path, f"{folder}/{name}")


def _node(disk: Disk, one: Plug) -> str:
    return f"{disk.root}/dev/bus/usb/{one.bus:03}/{one.device:03}"


def _attributes(new: Plug) -> dict[str, str]:
    vendor, product = new.id.split(":")
    number = f"{new.bus:03}/{new.device:03}"
    texts = {
        "busnum": str(new.bus),
        "devnum": str(new.device),
        "dev": new.number,
        "devpath": re.sub(r"^usb\d+$", "0", new.port).rpartition("-")[2],
        "idVendor": vendor,
        "idProduct": product,
        "bcdDevice": "0100",
        "bDeviceClass": HUB if new.hub else "00",
        "bConfigurationValue": "1",
        "speed": "480",
        "uevent": f"DEVNAME=bus/usb/{number}\nDEVTYPE=usb_device\nPRODUCT={vendor}/{product}/100",
    }
    words = {"serial": new.serial, "product": new.product, "manufacturer": new.manufacturer}
    return texts | {name: text for name, text in words.items() if text is not None}


def _interface_attributes(new: Plug, name: str) -> dict[str, str]:
    number = int(name.rpartition(".")[2])
    vendor, product = (part.upper() for part in new.id.split(":"))
    class_ = HUB if new.hub else HID
    modalias = f"usb:v{vendor}p{product}d0100dc00dsc00dp00ic{class_}isc00ip00in{number:02X}"
    return {
        "bInterfaceNumber": f"{number:02x}",
        "bInterfaceClass": class_,
        "modalias": modalias,
        "uevent": f"DEVTYPE=usb_interface\nMODALIAS={modalias}",
    }


def interface_drivers(disk: Disk) -> dict[str, object]:
    """Read the driver of each interface."""
    folder = f"{disk.sys}/bus/usb/devices"
    return {name: last_part(f"{folder}/{name}/driver") for name in names(folder) if ":" in name}
