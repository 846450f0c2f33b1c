"""A PCI domain that a device's driver makes, as the kernel's drivers/pci/controller/vmd.c does.

Its functions go when the driver goes, and are found again when it comes back.
"""

from collections.abc import Sequence
from typing import Any, cast

from hostdev_core.simulated.kernel.device import Device
from hostdev_core.simulated.kernel.disk import Disk, names
from hostdev_core.simulated.kernel.pci import Card, behind, domain_key, in_domains, plug, unplug


def functions(disk: Disk, device: Device) -> list[Device]:
    """List all functions of the domain, each bridge before the functions behind it."""
    found = in_domains(disk, device)
    for inner in found:
        found += behind(disk, inner)  # the loop goes on with these: bridges behind bridges
    return found


def remove_domain(disk: Disk, device: Device, inside: Sequence[Device]) -> None:
    """Remember the cards of these functions of the domain and unplug them; they are off their drivers."""
    if inside:
        cards = [disk.recall(f"devices/{inner.name}") for inner in inside]
        disk.remember(domain_key(device), {"cards": cards})
    for inner in reversed(inside):
        unplug(disk, inner)


def make_domain(disk: Disk, device: Device) -> list[Device]:
    """Plug in the remembered cards again, without drivers."""
    known = cast("list[dict[str, Any]]", disk.recall(domain_key(device)).get("cards") or [])
    there = names(f"{disk.sys}/bus/pci/devices")
    return [plug(disk, Card(**card)) for card in known if card["address"] not in there]
