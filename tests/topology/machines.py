"""Machines to draw: a large one, and one whose texts try to get out of a picture."""

from pathlib import Path
from typing import Any

from hostdev_core.facts.facts import Facts
from hostdev_core.simulated import SimulatedHost
from hostdev_core.topology.tree import Topology, read_topology

NASTY = '"><script>window.got=1</script><img src=x onerror="window.got=1">&lt;\'--><!--'
WIDE = "\ufdfd" * 40 + "W" * 200
PILED = "Z" + "\u0301" * 60
DOMAIN = "</title></svg></style><script>window.got=1</script>"


def read(host: SimulatedHost) -> Topology:
    return read_topology(Facts.of(host, texts=True))


def large(folder: Path) -> SimulatedHost:
    """64 bridges at 8 root buses with 7 network cards each, below two processors: 512 devices."""
    host = SimulatedHost.create(folder)
    group = 0
    for number in range(64):
        bus, at = number // 8 * 32, number % 8 + 1
        bridge = f"0000:{bus:02x}:{at:02x}.0"
        more: dict[str, Any] = {"numa_node": number // 32}
        host.add_pci(bridge, class_="060400", kernel_driver="pcieport", iommu_group=group, **more)
        for function in range(7):
            host.add_pci(
                f"0000:{bus + at:02x}:00.{function}",
                kernel_driver="igb",
                iommu_group=group + function // 2,
                parent=bridge,
                net=f"enp{bus + at}s0f{function}",
                **more,
            )
        group += 4
    return host


def hostile(folder: Path) -> SimulatedHost:
    """USB devices that call themselves what a page or a picture would obey, or that is very wide."""
    host = SimulatedHost.create(folder)
    host.add_pci("0000:01:00.0", kernel_driver="e1000e", iommu_group=1, net="eth0")
    for port, text in enumerate((NASTY, WIDE, PILED, "\u202eabc\x1b[31m\x00"), 1):
        host.add_usb(f"1-{port}", id="fff0:fff0", product=text, manufacturer="", serial="SECRET99")
    return host


def deep(folder: Path) -> SimulatedHost:
    """Sixty bridges, each behind the one before, and a card behind the last."""
    host = SimulatedHost.create(folder)
    parent: str | None = None
    for bus in range(60):
        bridge = f"0000:{bus:02x}:01.0"
        host.add_pci(bridge, class_="060400", kernel_driver="pcieport", parent=parent)
        parent = bridge
    host.add_pci("0000:3c:00.0", kernel_driver="e1000e", parent=parent, net="eth0")
    return host
