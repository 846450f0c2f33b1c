"""A PCI domain that a device's driver makes, as the kernel's drivers/pci/controller/vmd.c does.

Its functions go when the driver goes, and are found again when it comes back.
"""

from collections.abc import Sequence
from typing import Any, cast

from hostdev_core.simulated.kernel.device import Device
from hostdev_core.simulated.kernel.disk import Disk, names
from hostdev_core.simulated.kernel.pci import Card, behind, domain_mark, in_domains, plug, unplug


def functions(disk: Disk, device: Device) -> list[Device]:
    """All functions of the domain, bridges before what is behind them."""
    found = in_domains(disk, device)
    for inner in found:
        found += behind(disk, inner)  # which are looked behind in their turn
    return found


def remove_domain(disk: Disk, device: Device, inside: Sequence[Device]) -> None:
    """Take these functions of it away, and keep in mind what there was; they are off their drivers."""
    if inside:
        cards = [disk.recall(f"devices/{inner.name}") for inner in inside]
        disk.remember(domain_mark(device), {"cards": cards})
    for inner in reversed(inside):
        unplug(disk, inner)


def make_domain(disk: Disk, device: Device) -> list[Device]:
    """Plug in again what there was, without drivers."""
    known = cast("list[dict[str, Any]]", disk.recall(domain_mark(device)).get("cards") or [])
    there = names(f"{disk.sys}/bus/pci/devices")
    return [plug(disk, Card(**card)) for card in known if card["address"] not in there]
