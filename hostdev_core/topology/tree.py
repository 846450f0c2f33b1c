"""The tree of a host's devices, as values: what hangs on what, with the facts about each device."""

import re
from itertools import pairwise
from typing import NamedTuple

from hostdev_core.facts.use import CODES
from hostdev_core.kernel.sysfs import USB_DEVICES
from hostdev_core.topology.places import FUNCTION, ROOT_BUS, USB, read_ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hostdev_core.facts.facts import Facts
    from hostdev_core.facts.use import Description
    from hostdev_core.topology.places import Way

_RANKS = ("pci", "root bus", "hub", "usb", "elsewhere", "absent")


class Node(NamedTuple):
    """A place in the tree.

    `kind` is "pci" or "usb" for a device, "hub" for a USB hub, "root bus" for pciDDDD:BB, "elsewhere" for
    what a USB bus is on that is no PCI device, "absent" for all devices that only records know. `device` is
    what is told of a device, as `hostdev list` has it; of a hub its ids and names; else None. `numa_node` of
    a root bus is that of its devices, None where they differ.
    """

    kind: str
    name: str
    device: "Description | None" = None
    numa_node: int | None = None
    children: tuple["Node", ...] = ()

    @property
    def is_device(self) -> bool:
        """Whether it may be lent: neither a hub nor a mere place."""
        return self.device is not None and self.kind in {"pci", "usb"}

    def walk(self) -> "Iterator[Node]":
        """This node and all below it, from the top down."""
        yield self
        for child in self.children:
            yield from child.walk()

    def describe(self) -> "Description":
        """Describe it with all below it, for `--json`."""
        kind, name, device, numa_node, children = self
        below = [child.describe() for child in children]
        return {
            "kind": kind,
            "name": name,
            "device": device,
            "numa_node": numa_node,
            "children": below,
        }


class Topology(NamedTuple):
    """All of a host's devices in their places."""

    roots: tuple[Node, ...]

    @property
    def devices(self) -> "list[Description]":
        """What is told of each device, those that are not there included."""
        nodes = (node for root in self.roots for node in root.walk() if node.is_device)
        return [node.device for node in nodes if node.device is not None]

    @property
    def counts(self) -> dict[str, int]:
        """How many devices are used so, by the word of `use.code`; a word without a device is left out."""
        codes = [device["use"]["code"] for device in self.devices]
        return {code: codes.count(code) for code in CODES if code in codes}

    @property
    def borrowers(self) -> dict[str, list[str]]:
        """The addresses that each domain has, by its name with its driver: "vm1 (qemu)"."""
        found: dict[str, list[str]] = {}
        for device in self.devices:
            if owner := device["used_by"]:
                name = f"{owner['domain']} ({owner['driver']})"
                found.setdefault(name, []).append(device["address"])
        return found

    @property
    def groups(self) -> dict[int, list[str]]:
        """The addresses of the members of each IOMMU group."""
        found: dict[int, list[str]] = {}
        for device in self.devices:
            if device.get("iommu_group") is not None and "ids" in device:
                found.setdefault(device["iommu_group"], []).append(device["address"])
        return found


def read_topology(facts: "Facts", absent: "Sequence[Description]" = ()) -> Topology:
    """Put the devices of one look at a host into their places; nothing that takes a lock is read.

    `absent` are the devices that only records know, as `facts/records.py` describes them.
    """
    ways = read_ways(facts.host.sysfs)
    uppers = _uppers([*ways, *((device.name,) for device in facts.inventory.devices)])
    below: dict[str | None, list[str]] = {}
    for name, upper in uppers.items():
        below.setdefault(upper, []).append(name)
    nodes = [_node(facts, below, name) for name in below.get(None, ())]
    if absent:
        gone = tuple(Node(each["kind"], each["address"], each) for each in absent)
        nodes.append(Node("absent", "not there", children=gone))
    return Topology(_in_order(nodes))


def _uppers(ways: "Iterable[Way]") -> dict[str, str | None]:
    """What each name hangs on, None for a root; the first way counts, and none leads in a circle.

    Devices may come and go between two reads: then ways contradict each other.
    """
    uppers: dict[str, str | None] = {}
    for way in ways:
        for upper, name in pairwise((None, *way)):
            if name is not None and uppers.get(name) is None:
                uppers[name] = None if name in _above(uppers, upper) else upper
    return uppers


def _above(uppers: "Mapping[str, str | None]", name: str | None) -> "Iterator[str]":
    """This name and all that it hangs on."""
    while name is not None:
        yield name
        name = uppers.get(name)


def _node(facts: "Facts", below: "Mapping[str | None, Sequence[str]]", name: str) -> Node:
    """Make the node of this name, with all below it."""
    children = _in_order(_node(facts, below, each) for each in below.get(name, ()))
    kind = _kind(name)
    device = facts.inventory.at((kind, name))
    if device is not None:
        return Node(kind, name, facts.describe(device), facts.numa_node(device), children)
    if kind == "usb":
        return Node("hub", name, _hub(facts, name), None, children)
    return Node(kind, name, None, _common_numa_node(children), children)


def _kind(name: str) -> str:
    if ROOT_BUS.fullmatch(name):
        return "root bus"
    if FUNCTION.fullmatch(name):
        return "pci"
    return "usb" if USB.fullmatch(name) else "elsewhere"


def _hub(facts: "Facts", name: str) -> "Description":
    """Tell the ids of a hub, and their names; what it calls itself would take its lock."""
    glance = facts.host.sysfs.glance
    ids = ":".join(
        glance(f"{USB_DEVICES}/{name}/{each}") or "" for each in ("idVendor", "idProduct")
    )
    vendor, product = facts.names.usb(ids)
    return {
        "kind": "hub",
        "address": name,
        "ids": ids,
        "vendor_name": vendor,
        "device_name": product,
        "label": None,
        "unread": None,
    }


def _common_numa_node(children: "Iterable[Node]") -> int | None:
    found = {child.numa_node for child in children} - {None}
    return found.pop() if len(found) == 1 else None


def _in_order(nodes: "Iterable[Node]") -> tuple[Node, ...]:
    """Functions by address, what has a domain of its own after them, ports by their numbers."""

    def key(node: Node) -> tuple[int, int, list[int], str]:
        numbers = re.findall("[0-9]+", node.name) if node.kind in {"hub", "usb"} else ()
        return _RANKS.index(node.kind), len(node.name), [*map(int, numbers)], node.name

    return tuple(sorted(nodes, key=key))
