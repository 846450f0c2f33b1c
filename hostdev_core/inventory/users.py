"""Find the users of a device: processes with its nodes open, file systems, swap, network interfaces.

For the decision before anything is written, and for the message about a kernel that does not return. A
driver's remove takes the nodes and interfaces away before it waits for their users, so these are noted
before the write (`find_dependents`), and their users looked up when the write is late (`find_users`).
Nothing here takes the device's lock, as `uevent` would: it answers while the device hangs.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from hostdev_core.host import Host
from hostdev_core.inventory.interfaces import describe_interface, find_uppers, is_elsewhere
from hostdev_core.kernel.processes import Identity, find_identity, printable
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.kernel.vfio import group_node
from hostdev_core.model.device import Device

MOST_FOLDERS = 2000
MOST_USERS = 10
_KINDS = {"block": stat.S_IFBLK, "char": stat.S_IFCHR}
_NO_NODES = frozenset({
    "holders", "hwmon", "integrity", "mq", "msi_irqs", "power", "queue", "slaves", "statistics", "wakeup",
})  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,9}:[0-9]{1,9}")
_NVME_PATH = re.compile(r"(nvme[0-9]+)c[0-9]+(n[0-9]+)")
_NVIDIA_MAJOR = 195  # Documentation/admin-guide/devices.txt
_NVIDIA_MINOR = re.compile(r"^Device Minor:\s*([0-9]{1,3})$", re.MULTILINE)
Look = Callable[[str], str | None]
_OCTAL = re.compile(r"\\([0-7]{3})")


class Node(NamedTuple):
    """A device node below a device, or a block device that is made of one (`on`)."""

    kind: str
    number: str
    name: str
    path: str
    identity: Identity
    on: str | None = None


class Dependents(NamedTuple):
    """The dependents of a device: its nodes, and its network interfaces that are in use, in words."""

    nodes: tuple[Node, ...] = ()
    interfaces: tuple[str, ...] = ()


class Use(NamedTuple):
    """One use of a device's nodes or interfaces, in words, and in few; `names` are those of its users."""

    names: frozenset[str]
    words: str
    brief: str


class Hanging(NamedTuple):
    """What hangs on a device: its nodes, but for those that VFIO makes, and the uses that the kernel shows.

    `elsewhere`: a network interface is in another network namespace. `dependents` are for the message about
    a late write: VFIO's nodes are among them.
    """

    nodes: tuple[Node, ...]
    uses: tuple[Use, ...]
    elsewhere: bool
    dependents: Dependents


def find_vfio_nodes(host: Host, address: str) -> Dependents:
    """Find the nodes that VFIO made for a device which is on a driver of its: it has no others there."""
    path = f"{PCI_DEVICES}/{address}/vfio-dev"
    names = host.sysfs.names(path)
    found = [_node(host, host.sysfs.glance, f"{path}/{name}", name) for name in names]
    return Dependents(tuple([node for node in found if node is not None]))


def find_dependents(host: Host, address: str) -> Dependents:
    """Find the nodes and interfaces of a PCI device now: names and numbers only, cheap before a write."""
    look = host.sysfs.glance  # for messages: what can be had
    nodes: list[Node] = []
    interfaces: list[str] = []
    for path in islice(_folders(host, f"{PCI_DEVICES}/{address}"), MOST_FOLDERS):
        folder, _, name = path.rpartition("/")
        if folder.endswith("/net"):
            uppers = find_uppers(host, path)
            interfaces += filter(None, [describe_interface(host, path, uppers)])
        elif node := _node(host, look, path, name):
            nodes += [node, *_stacked(host, look, path, name)]
    nodes += _nvidia_nodes(host, address)
    return Dependents(tuple(dict.fromkeys(nodes)), tuple(interfaces))


def find_hanging(host: Host, device: Device) -> Hanging:
    """Find all nodes and uses of a PCI or USB device.

    KernelError when any of that cannot be seen: the device may be in use then.
    """
    look, address = host.sysfs.read, device.name
    nodes: list[Node] = []
    vfio: list[Node] = []
    uses: list[Use] = []
    interfaces: list[str] = []
    elsewhere = False
    for path in _folders(host, host.buses[device.kind].path(address)):
        folder, _, inner = path.rpartition("/")
        if folder.endswith("/net"):
            uppers = find_uppers(host, path)
            interfaces += filter(None, [describe_interface(host, path, uppers)])
            for upper, words in uppers.items():
                told = f"network interface {inner} is {words}"
                uses.append(Use(frozenset({upper}), told, f"{inner} {words}"))
        elif inner == "net":
            elsewhere |= is_elsewhere(host, path)
        elif node := _node(host, look, path, inner):
            mine = vfio if "/vfio-dev/" in path else nodes
            mine += [node, *_stacked(host, look, path, inner)]
    nodes += _nvidia_nodes(host, address)
    kept = tuple(dict.fromkeys(nodes))
    uses += _uses_of(host, kept) if kept else ()
    dependents = Dependents((*kept, *vfio), tuple(interfaces))
    return Hanging(kept, tuple(dict.fromkeys(uses)), elsewhere, dependents)


def _uses_of(host: Host, nodes: Sequence[Node]) -> Iterator[Use]:
    """Yield the uses of nodes: block devices made of them, mounts, swap."""
    for node in nodes:
        if node.on:
            yield Use(frozenset({node.name}), *[f"{node.name} on {node.on}"] * 2)
    for node, place in _mounts(host, nodes):
        yield Use(frozenset({node.name}), _mounted(node, place), f"{place} on {node.name}")
    for node, words in _swaps(host, nodes):
        yield Use(frozenset({node.name}), words, words)


def _mounted(node: Node, place: str) -> str:
    return f"{node.name} mounted at {place}"


def find_users(host: Host, address: str, before: Dependents | None = None) -> tuple[str, ...]:
    """Describe the users of a PCI device: processes, mounts, swap, block devices on top, interfaces.

    `before` are its dependents from before the write that does not return.
    """
    present = find_dependents(host, address)
    noted = before or Dependents()
    nodes = tuple(dict.fromkeys((*noted.nodes, *present.nodes)))
    interfaces = present.interfaces if before is None else before.interfaces
    users = (
        *_processes(host, address, nodes),
        *dict.fromkeys(_mounted(node, place) for node, place in _mounts(host, nodes)),
        *(words for _, words in _swaps(host, nodes)),
        *dict.fromkeys(f"{node.name} on {node.on}" for node in nodes if node.on),
        *interfaces,
    )
    return tuple(map(printable, users))  # a name may be any bytes


def held_by(users: Iterable[str]) -> str:
    """Word the users of a device as the end of a message; empty without any."""
    names = list(users)
    more = [f"{len(names) - MOST_USERS} more"] if len(names) > MOST_USERS else []
    return f"; held by {', '.join([*names[:MOST_USERS], *more])}" if names else ""


def _folders(host: Host, device: str) -> Iterator[str]:
    """Yield the directories of a device, nearest first, without those that never have nodes."""
    waiting = deque([device])
    while waiting:
        path = waiting.popleft()
        yield path
        folder, _, name = path.rpartition("/")
        if folder.endswith("/net"):
            continue
        waiting += (
            f"{path}/{inner}" for inner in host.sysfs.folders(path) if inner not in _NO_NODES
        )
        if match := _NVME_PATH.fullmatch(name):  # one path of a disk that has its node elsewhere
            waiting.append(f"class/block/{match[1]}{match[2]}")


def _nvidia_nodes(host: Host, address: str) -> Iterator[Node]:
    """Yield the node of NVIDIA's driver (/dev/nvidia0), which is in its /proc and not in sysfs."""
    text = host.read_text(f"proc/driver/nvidia/gpus/{address}/information") or ""
    if match := _NVIDIA_MINOR.search(text):
        name = f"nvidia{match[1]}"
        where = host.path(f"dev/{name}")
        number = os.makedev(_NVIDIA_MAJOR, int(match[1]))
        known = _of_file(where) or (stat.S_IFCHR, number, 0)
        yield Node("char", f"{_NVIDIA_MAJOR}:{match[1]}", name, where, known)


def _node(host: Host, look: Look, path: str, name: str, on: str | None = None) -> Node | None:
    number = look(f"{path}/dev")
    if number is None or not _NUMBER.fullmatch(number):
        return None
    kind = "block" if host.sysfs.link(f"{path}/subsystem") == "block" else "char"
    link = host.path(f"dev/{kind}/{number}")  # udev's, to the node of that number
    where = os.path.realpath(link) if os.path.exists(link) else host.path(f"dev/{name}")
    major, minor = (int(part) for part in number.split(":"))
    known = find_identity(link) or _of_file(where) or (_KINDS[kind], os.makedev(major, minor), 0)
    return Node(kind, number, name, where, known, on)


def _of_file(path: str) -> Identity | None:
    """Read the identity of a regular file, which a simulated host has in place of a node."""
    known = find_identity(path)
    return known if known is not None and known[0] == stat.S_IFREG else None


def _stacked(host: Host, look: Look, path: str, name: str) -> Iterator[Node]:
    """Yield the block devices that are made of this one (dm, md), and those made of them."""
    waiting, seen = deque([(path, name)]), {name}
    while waiting:
        path, below = waiting.popleft()
        for holder in host.sysfs.names(f"{path}/holders"):
            place = f"class/block/{holder}"
            if holder not in seen and (node := _node(host, look, place, holder, on=below)):
                seen.add(holder)
                waiting.append((place, holder))
                yield node


def _processes(host: Host, address: str, nodes: Iterable[Node]) -> Iterator[str]:
    group = host.sysfs.link(f"{PCI_DEVICES}/{address}/iommu_group")
    vfio = find_identity(host.path(group_node(host.sysfs, group))) if group else None
    found = host.openers({node.identity for node in nodes} | ({vfio} if vfio else set()))
    if not found and vfio:
        found = host.vfio_users(address)
    return map(str, found)


def _mounts(host: Host, nodes: Iterable[Node]) -> Iterator[tuple[Node, str]]:
    """Yield the mounts of these nodes, and where each is; format: proc_pid_mountinfo(5).

    A file system with a device number of its own, as Btrfs, is found by its source.
    """
    blocks = [node for node in nodes if node.kind == "block"]
    for line in (host.read_text("proc/self/mountinfo") or "").splitlines() if blocks else ():
        fields, _, rest = line.partition(" - ")
        words, source = fields.split(" "), rest.split(" ")[1:2]
        if len(words) > 4 and source:
            path = _real_node(host, source[0])
            for node in blocks:
                if words[2] == node.number or path == node.path:
                    yield node, _plain(words[4])
                    break


def _swaps(host: Host, nodes: Iterable[Node]) -> Iterator[tuple[Node, str]]:
    blocks = [node for node in nodes if node.kind == "block"]
    lines = (host.read_text("proc/swaps") or "").splitlines()[1:] if blocks else ()
    used = {_real_node(host, line.split()[0]) for line in lines if line.strip()}
    return ((node, f"swap on {node.name}") for node in blocks if node.path in used)


def _real_node(host: Host, source: str) -> str | None:
    """Resolve a name below /dev; None for any other path, which is not touched: it may hang (NFS)."""
    path = _plain(source)
    return os.path.realpath(host.path(path)) if path.startswith("/dev/") else None


def _plain(text: str) -> str:
    return printable(_OCTAL.sub(lambda match: chr(int(match[1], 8)), text))
