"""What a host driver makes of its device: a network interface, USB buses with what is plugged in.

They go when the driver goes and come back with it.
"""

import os
from typing import cast

from hostdev_core.simulated import usb
from hostdev_core.simulated.device import Device
from hostdev_core.simulated.disk import Disk, link, make, remove_tree, unlink
from hostdev_core.simulated.events import note_event

_USB_CONTROLLER = "0c03"


def settle_belongings(disk: Disk, device: Device, present: bool) -> None:
    """Let them be there, or not; the device's lock is held."""
    facts = disk.recall(f"devices/{device.name}")
    net = cast("str | None", facts.get("net"))
    if net:
        _settle_interface(disk, device, net, present)
    if str(facts.get("class_")).startswith(_USB_CONTROLLER):
        usb.settle_buses(disk, device.name, present)


def _settle_interface(disk: Disk, device: Device, name: str, present: bool) -> None:
    folder, known = f"{device.path}/net", f"{disk.sys}/class/net/{name}"
    if present == os.path.lexists(known):
        return
    unlink(known)
    remove_tree(folder)
    if present:
        os.makedirs(f"{folder}/{name}")
        link(device.path, f"{folder}/{name}/device")
        make(f"{folder}/{name}/address", "52:54:00:00:00:01\n", 0o444)
        make(f"{folder}/{name}/operstate", "down\n", 0o444)
        link(f"{folder}/{name}", known)  # last: it says that all is there
    note_event(disk, "add" if present else "remove", "net", name)
