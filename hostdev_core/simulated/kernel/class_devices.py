"""Class devices: the network interface, disk, nodes and USB buses that a host driver makes of its device.

They go when the driver goes and come back with it; all but the buses are named by the card.
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from hostdev_core.simulated.kernel import late, usb
from hostdev_core.simulated.kernel.device import Device
from hostdev_core.simulated.kernel.disk import Disk, link, make, names, read, remove_tree, unlink
from hostdev_core.simulated.kernel.events import note_event

_USB_CONTROLLER = "0c03"
_MAJORS = {"block": 259, "drm": 226, "sound": 116}  # Documentation/admin-guide/devices.txt


class _Node(NamedTuple):
    """A device node: its class, its directory below the device's, the node below /dev."""

    class_: str
    folder: str
    node: str

    @property
    def name(self) -> str:
        """The kernel's name of it."""
        return os.path.basename(self.node)

    @property
    def kind(self) -> str:
        """Block or character device."""
        return "block" if self.class_ == "block" else "char"


def settle_class_devices(disk: Disk, device: Device, present: bool) -> None:
    """Make or remove the class devices of a device, whose lock is held; those there already stay."""
    card = disk.recall(f"devices/{device.name}")
    for name in cast("list[str]", card.get("net") or []):
        _settle_interface(disk, device, name, present)
    nodes = [*_nodes(card)]
    for node in nodes if present else reversed(nodes):  # a partition goes before its disk
        _settle_node(disk, device, node, present)
    if str(card.get("class_")).startswith(_USB_CONTROLLER):
        usb.settle_buses(disk, device.name, present)


def _nodes(card: dict[str, object]) -> Iterator[_Node]:
    """List the nodes that the card names; a partition lies in the directory of its disk."""
    names = {class_: cast("list[str]", card.get(class_) or []) for class_ in _MAJORS}
    for number, name in enumerate(names["block"]):
        disk = names["block"][0]
        controller = re.fullmatch(r"(nvme[0-9]+)n[0-9]+", disk)
        folder = f"nvme/{controller[1]}/{disk}" if controller else f"block/{disk}"
        yield _Node("block", f"{folder}/{name}" if number else folder, name)
    for name in names["drm"]:
        yield _Node("drm", f"drm/{name}", f"dri/{name}")
    for name in names["sound"]:
        found = re.search(r"C([0-9]+)", name)
        yield _Node("sound", f"sound/card{found[1] if found else 0}/{name}", f"snd/{name}")


def _settle_node(disk: Disk, device: Device, node: _Node, present: bool) -> None:
    path, known = f"{device.path}/{node.folder}", f"{disk.sys}/class/{node.class_}/{node.name}"
    place = f"{disk.root}/dev/{node.node}"
    if present == os.path.lexists(known):
        return
    unlink(known)  # first: where the link is missing, the rest is half made or half removed
    if number := read(f"{path}/dev"):
        unlink(f"{disk.root}/dev/{node.kind}/{number.strip()}")
    unlink(place)
    remove_tree(path)
    if present:
        for folder in (f"{path}/holders", os.path.dirname(place), f"{disk.root}/dev/{node.kind}"):
            os.makedirs(folder, exist_ok=True)
        os.makedirs(f"{disk.sys}/class/{node.class_}", exist_ok=True)
        make(place, "", 0o660)
        number = f"{_MAJORS[node.class_]}:{os.stat(place).st_ino}"  # an inode's number is unique
        link(place, f"{disk.root}/dev/{node.kind}/{number}")
        make(f"{path}/dev", f"{number}\n", 0o444)
        link(f"{disk.sys}/class/{node.class_}", f"{path}/subsystem")
        link(path, known)  # last: it says that all is there
    note_event(disk, "add" if present else "remove", node.class_, node.name)


def _settle_interface(disk: Disk, device: Device, name: str, present: bool) -> None:
    folder, known = f"{device.path}/net", f"{disk.sys}/class/net/{name}"
    late.drop(disk, known)
    if present == os.path.lexists(known):
        return
    unlink(known)
    remove_tree(f"{folder}/{name}")
    if not names(folder):
        remove_tree(folder)
    if present:
        os.makedirs(f"{folder}/{name}")
        link(device.path, f"{folder}/{name}/device")
        link(f"{disk.sys}/class/net", f"{folder}/{name}/subsystem")
        number = os.stat(f"{folder}/{name}").st_ino  # unique, and new each time
        make(f"{folder}/{name}/ifindex", f"{number}\n", 0o444)
        make(f"{folder}/{name}/address", "52:54:00:00:00:01\n", 0o444)
        make(f"{folder}/{name}/operstate", "down\n", 0o444)
        make(f"{folder}/{name}/flags", "0x1002\n", 0o644)  # broadcast, multicast; not up
        # The link comes last: it says that all is there.
        late.link_interface(disk, name, f"{folder}/{name}", known)
    note_event(disk, "add" if present else "remove", "net", name)
