"""Simulated hosts with what the guard reads: block devices, mounts, swaps, interfaces, routes, screens.

Files and links are those of a Linux 6.1 kernel; a device's directory lies where the kernel puts it.
"""

import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import hostdev_guard
import hostdev_test
from hostdev_core import (
    Connection,
    Domain,
    PCIAddress,
    Refusal,
    Registry,
    VetoError,
    open_connection,
)
from hostdev_core.testing import SimulatedHost

ROUTES = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
NOWHERE = "0" * 32


def refusals_of(error: VetoError) -> list[Refusal]:
    """What the plugins said."""
    return [each for each in error.refusals if isinstance(each, Refusal)]


class Machine:
    """One simulated host and hands to put things onto it; a block device is known by its name."""

    def __init__(self, path: Path) -> None:
        self.host = SimulatedHost.create(path)
        self.sys = Path(self.host.path("sys"))
        self.proc = Path(self.host.path("proc"))
        self._numbers = count(1)
        for name in ("class/block", "dev/block", "devices/virtual/block", "devices/virtual/net"):
            (self.sys / name).mkdir(parents=True)

    def add(self, address: str, driver: str | None = "nvme", **more: object) -> str:
        """A PCI function; its address."""
        kind = {"id": "144d:a808", "class_": "010802"} | more
        return str(self.host.add_pci(address, kernel_driver=driver, **kind))  # type: ignore[arg-type]

    def folder(self, device: str) -> Path:
        """The real directory of a PCI function or USB device."""
        try:
            path = self.sys / "bus/pci/devices" / str(PCIAddress.parse(device))
        except ValueError:
            path = self.sys / "bus/usb/devices" / device
        return path.resolve(strict=True)

    def disk(self, device: str, name: str, way: str = "nvme/nvme0") -> str:
        """A disk of a device, with what the kernel has between them."""
        return self.block(self.folder(device) / way / name)

    def nvme(self, address: str, name: str = "nvme0n1") -> str:
        """An NVMe controller with one namespace."""
        return self.disk(self.add(address), name)

    def part(self, disk: str, name: str) -> str:
        """A partition."""
        node = self.node(disk) / name
        self.block(node)
        self.write(node / "partition", "1")
        return name

    def virtual(self, name: str, *slaves: str) -> str:
        """A volume, array or mapping over other block devices."""
        node = self.sys / "devices/virtual/block" / name
        self.block(node)
        for slave in slaves:
            self.link(node / "slaves" / slave, self.node(slave))
            self.link(self.node(slave) / "holders" / name, node)
        return name

    def block(self, node: Path) -> str:
        """A block device at a directory of sysfs."""
        for name in ("slaves", "holders"):
            (node / name).mkdir(parents=True)
        number = f"259:{next(self._numbers)}"
        self.write(node / "dev", number)
        self.link(self.sys / "class/block" / node.name, node)
        self.link(self.sys / "dev/block" / number, node)
        return node.name

    def node(self, name: str) -> Path:
        """The directory of a block device."""
        return (self.sys / "class/block" / name).resolve(strict=True)

    def number(self, name: str) -> str:
        """Its "major:minor"."""
        return (self.node(name) / "dev").read_text().strip()

    def mount(
        self,
        point: str,
        name: str | None = None,
        *,
        type: str = "ext4",
        source: str | None = None,
        options: str = "rw",
        process: str = "self",
    ) -> None:
        """A mount of a block device; of none (an anonymous one) without a name."""
        number = "0:42" if name is None else self.number(name)
        source = source or f"/dev/{name}"
        line = f"40 1 {number} / {point} rw,relatime shared:1 - {type} {source} {options}\n"
        self.append(self.proc / process / "mountinfo", line)

    def swap(self, path: str, type: str = "partition") -> None:
        """Something that is swapped to."""
        head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        self.append(self.proc / "swaps", f"{path:40}{type}\t8388604\t0\t-2\n", head)

    def interface(self, name: str, device: str | None = None, *, over: Iterable[str] = ()) -> str:
        """A network interface, of a device or virtual."""
        if device is None:
            node = self.sys / "devices/virtual/net" / name
        else:
            node = self.folder(device) / "net" / name
        node.mkdir(parents=True)
        self.link(self.sys / "class/net" / name, node)
        for lower in over:
            self.link(node / f"lower_{lower}", self.net(lower))
            self.link(self.net(lower) / f"upper_{name}", node)
        return name

    def joined(self, name: str, kind: str, *members: str) -> str:
        """A bond or bridge ("bonding", "bridge") with members."""
        self.interface(name, over=members)
        (self.net(name) / kind).mkdir()
        for member in members:
            self.link(self.net(member) / "master", self.net(name))
        return name

    def net(self, name: str) -> Path:
        """The directory of a network interface."""
        return (self.sys / "class/net" / name).resolve(strict=True)

    def route(
        self, name: str, to: str = "00000000", mask: str = "00000000", flags: int = 3
    ) -> None:
        """An IPv4 route; the default one, unless said otherwise."""
        line = f"{name}\t{to}\t010200C0\t{flags:04X}\t0\t0\t100\t{mask}\t0\t0\t0\n"
        self.append(self.proc / "net/route", line, ROUTES)

    def route6(self, name: str, flags: int = 0x3) -> None:
        """An IPv6 default route."""
        line = f"{NOWHERE} 00 {NOWHERE} 00 fe80{'0' * 27}1 00000400 00000001 00000000 {flags:08x}"
        self.append(self.proc / "net/ipv6_route", f"{line} {name:>8}\n")

    def udev(self, name: str, **properties: str) -> None:
        """What udev's database says of a block device."""
        lines = "".join(f"E:{key}={value}\n" for key, value in properties.items())
        path = Path(self.host.path(f"run/udev/data/b{self.number(name)}"))
        self.append(path, f"S:disk/by-id/{name}\nI:1234\n{lines}")

    def framebuffer(self, folder: Path) -> None:
        """The first framebuffer, of a device's directory."""
        node = folder / "graphics/fb0"
        node.mkdir(parents=True)
        self.link(self.sys / "class/graphics/fb0", node)

    def consoles(self, **bound: bool) -> None:
        """The drivers of virtual terminals, by the first word of their names."""
        names = {"dummy": "(S) dummy device", "frame": "(M) frame buffer device", "vga": "(S) VGA+"}
        for number, (word, is_bound) in enumerate(bound.items()):
            folder = self.sys / f"class/vtconsole/vtcon{number}"
            self.write(folder / "name", names[word])
            self.write(folder / "bind", str(int(is_bound)))

    def connect(self) -> Connection:
        """A connection of the test driver, guarded."""
        registry = Registry()
        registry.register(hostdev_test, name="test")
        registry.register(hostdev_guard.plugin, name="guard")
        return open_connection(f"test://{self.host.root}", registry=registry)

    def refused(self, *devices: str) -> dict[tuple[str, str], tuple[str, ...]]:
        """The evidence of each refusal to lend these devices, by device and rule."""
        with self.connect() as conn:
            try:
                conn.plan(Domain("vm1", devices))  # type: ignore[arg-type]
            except VetoError as error:
                return {(r.device, r.rule): r.evidence for r in refusals_of(error)}
            return {}

    @staticmethod
    def write(path: Path, text: str) -> None:
        """A file with one line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    @staticmethod
    def append(path: Path, text: str, head: str = "") -> None:
        """More text in a file, which begins with `head`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_text() if path.exists() else head
        path.write_text(old + text)

    @staticmethod
    def link(path: Path, target: Path) -> None:
        """A relative link, as in sysfs."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(target, path.parent.resolve()))
