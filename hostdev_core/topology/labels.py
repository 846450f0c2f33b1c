"""The words that every picture shows of a node, and the manner of its use, which has a colour and a mark.

Texts of devices and domains are foreign: all that leaves here is printable, on one line. Serial numbers
are left out, for pictures are passed on.
"""

from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.facts.class_words import class_word
from hostdev_core.facts.facts import device_text
from hostdev_core.kernel.processes import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostdev_core.facts.use import Description
    from hostdev_core.topology.tree import Node, Topology

_MANNERS = {
    "free": ("available",),
    "host": ("host",),
    "lent": ("lent", "sibling"),
    "between": ("inactive", "preparing", "releasing", "waiting"),
    "foreign": ("foreign",),
    "trouble": ("stuck", "left over", "rebound", "gone", "replaced"),
    "unknown": ("unknown",),
}
PLACE = "place"
"""The manner of what is there for other devices only: root buses, hubs, bridges."""
_PLACES = {"hub": "USB hub", "root bus": "root bus", "elsewhere": "not on PCI", "absent": "records"}
_NAMED = (("network", "net"), ("disks", "block"), ("DRM nodes", "drm"))


def manner_of(code: str) -> str:
    """The manner of a use, by its code."""
    return next(manner for manner, codes in _MANNERS.items() if code in codes)


class Label(NamedTuple):
    """What a picture shows of a node; "" where there is nothing to show.

    `manner` is PLACE or one of palette.MANNERS, `code` that of its use, "" for what has none.
    """

    address: str
    what: str
    model: str
    names: str
    kernel_driver: str
    group: str
    numa: str
    state: str
    code: str
    manner: str


def label_of(node: "Node") -> Label:
    """Put a node into words."""
    device = node.device or {}
    use = device.get("use", {"code": "", "text": ""})
    group, numa = device.get("iommu_group"), node.numa_node
    words = Label(
        address=node.name,
        what=_what(node),
        model=_model(device) if "ids" in device else _place_of(node),
        names=" ".join(name for _, key in _NAMED for name in device.get(key, ())),
        kernel_driver=device.get("kernel_driver") or "",
        group="" if group is None else str(group),
        numa="" if numa is None else str(numa),
        state=use["text"],
        code=use["code"],
        manner="",
    )
    cleaned = Label(*map(printable, words))
    is_place = not node.is_device or (use["code"] == "host" and _is_bridge(device))
    return cleaned._replace(manner=PLACE if is_place else manner_of(use["code"]))


def _is_bridge(device: "Description") -> bool:
    return str(device.get("class", "")).startswith("06")


def _model(device: "Description") -> str:
    """What it is called, without its vendor where the model is known: pictures are narrow."""
    is_known = device["device_name"] and not device["unread"]
    return str(device["device_name"]) if is_known else device_text(device)


def _place_of(node: "Node") -> str:
    is_known = node.kind == "root bus" and node.numa_node is not None
    return f"NUMA node {node.numa_node}" if is_known else ""


def _what(node: "Node") -> str:
    device = node.device or {}
    if "class" in device:
        return class_word(device["class"]) or device["class_name"] or f"class {device['class']}"
    return _PLACES.get(node.kind) or ("USB" if node.kind == "usb" else "PCI")


class Row(NamedTuple):
    """A line of a picture: how deep it hangs, and the number of the line that it hangs on."""

    node: "Node"
    label: Label
    depth: int
    upper: int | None
    is_last: bool


def rows_of(topology: "Topology") -> list[Row]:
    """The lines of a picture, from the top down, each below what it hangs on."""
    rows: list[Row] = []

    def add(nodes: "Iterable[Node]", depth: int, upper: int | None) -> None:
        every = [*nodes]
        for node in every:
            rows.append(Row(node, label_of(node), depth, upper, node is every[-1]))
            add(node.children, depth + 1, len(rows) - 1)

    add(topology.roots, 0, None)
    return rows


def counts_of(topology: "Topology") -> str:
    """How many devices there are, and how many are used how: "7 devices: 5 host, 2 lent"."""
    counts = ", ".join(f"{count} {code}" for code, count in topology.counts.items())
    total = len(topology.devices)
    return f"{total} device{'' if total == 1 else 's'}{': ' if counts else ''}{counts}"


def loans_of(topology: "Topology") -> list[str]:
    """What is lent to whom, a line for each domain: "vm1 (qemu): 0000:01:00.0, 1-3"."""
    lent = topology.borrowers.items()
    return [printable(f"{who}: {', '.join(addresses)}") for who, addresses in lent]


def details_of(node: "Node", topology: "Topology") -> list[tuple[str, str]]:
    """All that is told of a node, as names with values, in the order of importance."""
    found = _place(node) if node.device is None else _details(node, node.device, topology)
    return [(name, printable(str(value))) for name, value in found if value not in {None, ""}]


def _place(node: "Node") -> "Iterator[tuple[str, object]]":
    yield "kind", _what(node)
    yield "NUMA node", node.numa_node
    inner = [each for child in node.children for each in child.walk() if each.is_device]
    yield "devices", len(inner)


def _details(
    node: "Node", device: "Description", topology: "Topology"
) -> "Iterator[tuple[str, object]]":
    yield "kind", device.get("class_name") or _what(node)
    if "ids" in device:
        yield "name", device_text(device)
        yield "ids", device["ids"]
    if not node.is_device:
        return
    yield "state", device["use"]["text"]
    for reason in device["use"]["evidence"]:
        yield "because", reason
    yield from _owner(device)
    if node.kind == "pci" and "ids" in device:
        yield "kernel driver", device["kernel_driver"] or "none"
        group: int | None = device["iommu_group"]
        yield "IOMMU group", "none" if group is None else group
        for address in topology.groups.get(group, ()) if group is not None else ():
            if address != device["address"]:
                yield "shares it with", address
    yield "NUMA node", node.numa_node
    for title, key in _NAMED:
        yield title, " ".join(device.get(key, ()))
    yield "virtual function of", device.get("physfn")
    yield "bus and number", device.get("number")
    for key in ("replugged", "stuck", "unread"):
        if device.get(key) not in {None, *device["use"]["evidence"]}:
            yield "note", device[key]


def _owner(device: "Description") -> "Iterator[tuple[str, object]]":
    if owner := device["used_by"]:
        yield "domain", owner["domain"]
        yield "backend", f"{owner['driver']} ({owner['uri']})"
        yield "UUID", owner["uuid"]
