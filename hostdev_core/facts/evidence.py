"""Look for the users of devices: mounts, swap, routes, processes, guests of others, overrides of others.

All of it is found by the functions that a plan refuses by (`inventory/users.py`, `holders.py`,
`interfaces.py`); here it is put into few words, the weightiest first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.errors import KernelError
from hostdev_core.facts.locked import read_overrides
from hostdev_core.facts.use import WITHOUT_RECORD, Use, structure
from hostdev_core.inventory.holders import find_lasting
from hostdev_core.inventory.interfaces import find_interface_uses, find_uppers
from hostdev_core.inventory.unrecorded import is_unrecorded
from hostdev_core.inventory.users import Hanging, find_hanging
from hostdev_core.kernel.processes import Holder, Identity, Search, find_identity, printable
from hostdev_core.kernel.vfio import group_node
from hostdev_core.model.device import Device, PCIDevice, is_vfio_driver

if TYPE_CHECKING:
    from hostdev_core.facts.facts import Facts
    from hostdev_core.host import Host

_AT_REST = {"lent", "sibling", "inactive", "waiting", "rebound"}
_DEFAULT = "default route"
_TARGETED = (_DEFAULT, "route to", "address")
Key = tuple[str, str]


class _Found(NamedTuple):
    """What hangs on a device, the nodes by which a guest has it, and the kernel's word for a guest."""

    hanging: Hanging
    guest: frozenset[Identity]
    claims: Sequence[str]


class _Looked(NamedTuple):
    """What was asked for all devices at once: their openers, and driver_override by address."""

    search: Search
    overrides: Mapping[str, str | None]


def find_uses(
    facts: "Facts",
    devices: Sequence[Device],
    overrides: Mapping[str, str | None] | None = None,
) -> dict[Key, Use]:
    """Find the uses of these devices, by kind and name; of one that cannot be looked at it is `unknown`.

    `overrides` are the driver_override by address, where they were read already.
    A device that an operation works on, or that is stuck, is not looked at any closer.
    """
    uses = {(device.kind, device.name): facts.use(device) for device in devices}
    found: dict[Key, _Found] = {}
    for device in devices:
        key = device.kind, device.name
        if not _is_asked(device, uses[key]):
            continue
        try:
            found[key] = _look(facts.host, device)
        except KernelError as error:
            uses[key] = Use("unknown", "unknown", (printable(str(error)),))
    if overrides is None:
        free = {name for (_, name), use in uses.items() if use.code in WITHOUT_RECORD}
        overrides = read_overrides(
            facts.host, [name for kind, name in found if kind == "pci" and name in free]
        )
    looked = _Looked(_search(facts.host, found), overrides)
    for device in devices:
        key = device.kind, device.name
        if key in found:
            uses[key] = _judge(facts, device, found[key], looked)
    return uses


def _is_asked(device: Device, use: Use) -> bool:
    if isinstance(device, PCIDevice) and device.is_bridge:  # all that is behind it hangs on it
        return False
    return device.unread is None and use.code in {"available", "host", "foreign", *_AT_REST}


def _look(host: "Host", device: Device) -> _Found:
    hanging = find_hanging(host, device)
    own = {node.identity for node in hanging.nodes}
    guest = {node.identity for node in hanging.dependents.nodes} - own
    if isinstance(device, PCIDevice) and device.iommu_group is not None and _is_vfio(device):
        node = find_identity(host.path(group_node(host.sysfs, device.iommu_group)))
        guest |= {node} if node else set()
    return _Found(hanging, frozenset(guest), host.buses[device.kind].claims(device))


def _is_vfio(device: PCIDevice) -> bool:
    return is_vfio_driver(device.kernel_driver, device.is_vfio)


def _search(host: "Host", found: Mapping[Key, _Found]) -> Search:
    """Search once for who has any node of these devices open."""
    nodes = {node.identity for each in found.values() for node in each.hanging.nodes}
    return find_lasting(host, nodes.union(*(each.guest for each in found.values())))


def _judge(facts: "Facts", device: Device, found: _Found, looked: _Looked) -> Use:
    """Put together what was found for one device."""
    known = facts.use(device)
    guests = [f"held by {holder}" for holder in _openers(looked.search, found.guest)]
    if not guests and found.claims:
        own = {node.identity for node in found.hanging.nodes}
        guests = [f"held by {holder}" for holder in _openers(looked.search, own)]
        guests = [*guests, *found.claims]
    if known.code in _AT_REST:
        return known._replace(evidence=_printable([*known.evidence, *guests]), whole=True)
    unseen = _unseen(device, looked)
    others = [*_users(facts, device, found, looked.search), *_overridden(facts, device, looked)]
    if guests or is_unrecorded(facts.inventory, device):
        evidence = _printable([*guests, *known.evidence, *others])
        first = guests[0] if guests else known.text.partition(": ")[2]
        return Use("foreign", _text("foreign", [printable(first)]), evidence, not unseen)
    evidence = _printable([*others, *structure(device, facts.children(device))])
    if evidence:
        return Use("host", _text("host", evidence), evidence, not unseen)
    return Use("available", "available", _printable(unseen), not unseen)


def _text(code: str, evidence: Sequence[str]) -> str:
    more = f" +{len(evidence) - 1}" if len(evidence) > 1 else ""
    return f"{code}: {evidence[0]}{more}"


def _unseen(device: Device, looked: _Looked) -> list[str]:
    """What could not be seen of the users of a device without a record."""
    why = looked.search.cut or looked.search.hidden
    found = [f"who has it open was not seen in full: {why}"] if why else []
    if device.kind == "pci" and device.name not in looked.overrides:
        found.append("its driver_override was not read: the kernel does not answer")
    return found


def _printable(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(printable, texts)))


def _openers(search: Search, nodes: "frozenset[Identity] | set[Identity]") -> list[Holder]:
    return sorted({holder for known, holder in search.found if known in nodes})


def _users(facts: "Facts", device: Device, found: _Found, search: Search) -> Iterator[str]:
    """Yield the uses by the host itself, the weightiest first."""
    hanging = found.hanging
    briefs = [use.brief for use in hanging.uses]
    # The root first, then other mounts by their place; below them what only leads there.
    yield from sorted(brief for brief in briefs if brief.startswith("/"))
    interfaces = [*_interfaces(facts, device)]
    yield from (words for words in interfaces if words.startswith(_DEFAULT))
    yield from _processes(hanging, search)
    yield from (brief for brief in briefs if not brief.startswith("/"))
    yield from interfaces
    if hanging.elsewhere:
        yield "a network interface of it is in another network namespace"


def _interfaces(facts: "Facts", device: Device) -> Iterator[str]:
    for name in facts.classes.names((device.kind, device.name), "net"):
        path = f"class/net/{name}"
        for words in find_interface_uses(facts.host, path, find_uppers(facts.host, path)):
            yield f"{words} on {name}" if words.startswith(_TARGETED) else f"{name} {words}"


def _processes(hanging: Hanging, search: Search) -> Iterator[str]:
    for node in hanging.nodes:
        for holder in _openers(search, {node.identity}):
            if "/dri/" in node.path:
                yield f"{node.name} ({holder.command}, pid {holder.pid})"
            else:
                yield f"held by {holder}"


def _overridden(facts: "Facts", device: Device, looked: _Looked) -> Iterator[str]:
    """Yield by whom driver_override is set, for a device without a record: it is nobody's of hostdev's.

    driverctl keeps its overrides in /etc/driverctl.d, in a file for each device (driverctl(8)).
    """
    override = looked.overrides.get(device.name) if device.kind == "pci" else None
    if override is None:
        return
    kept = facts.host.glance_text(f"etc/driverctl.d/pci-{device.name}", 256)
    by = "overridden by driverctl" if kept is not None else "driver_override is set"
    yield f"{by} ({override})"
