"""Block devices as sysfs shows them: by number, by name, and what each stands on."""

import os
import re
from collections.abc import Iterator
from functools import cached_property

from hostdev_core import Host
from hostdev_guard.chains import node_at, nodes_at

_CACHE = re.compile(r"cache[0-9]+")
_CONTROLLER = re.compile(r"nvme[0-9]+")


class Blocks:
    """The block devices of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sysfs = host.sysfs
        self._numbers: dict[str, str | None] = {}

    def numbered(self, number: str) -> str | None:
        """The device of a "major:minor"; a host with containers asks a thousand times for a few."""
        if number not in self._numbers:
            self._numbers[number] = node_at(self.host, f"dev/block/{number}")
        return self._numbers[number]

    def called(self, name: str) -> str | None:
        """The device that the kernel calls so ("sda1")."""
        return node_at(self.host, f"class/block/{name.replace('/', '!')}")

    def named(self, path: str) -> str | None:
        """The device of a node ("/dev/sda1", "/dev/mapper/root"); None when it is none."""
        name = path.removeprefix("/dev/")
        if not name or name.startswith("/"):
            return None
        if node := self.called(name):
            return node
        folder = os.path.realpath(self.host.path("dev"))
        real = os.path.relpath(os.path.realpath(os.path.join(folder, name)), folder)
        return self.called(real) or self._mapped.get(name.removeprefix("mapper/"))

    @cached_property
    def all(self) -> dict[str, str]:
        """All block devices by name."""
        names = self.sysfs.names("class/block")
        return {name: node for name in names if (node := self.called(name))}

    @cached_property
    def _mapped(self) -> dict[str, str]:
        """The device-mapper devices by what they are called in /dev/mapper."""
        names = {self.sysfs.read(f"{node}/dm/name"): node for node in self.all.values()}
        return {name: node for name, node in names.items() if name is not None}

    def below(self, node: str) -> Iterator[str]:
        """The disk of a partition; the members of a volume, an array, a cache or a multipath."""
        folder, _, name = node.rpartition("/")
        if self.called(folder.rpartition("/")[2]) == folder:
            yield folder
        slaves = self.sysfs.names(f"{node}/slaves")
        yield from nodes_at(self.host, (f"{node}/slaves/{slave}" for slave in slaves))
        if name.startswith("bcache"):
            yield from self._caches(f"{node}/bcache/cache")
        if "/nvme-subsystem/" in folder:
            names = filter(_CONTROLLER.fullmatch, self.sysfs.names(folder))
            yield from nodes_at(self.host, (f"{folder}/{each}" for each in names))
        written_back = self.sysfs.read(f"{node}/backing_dev")  # of zram; "none" without
        for source in (self._backing(node), written_back):
            if source is not None and source.startswith("/dev/"):
                yield from filter(None, [self.named(source)])

    def backing_file(self, node: str) -> str | None:
        """The file of a loop device; None for every other one, and for a loop over a device."""
        source = self._backing(node)
        return None if source is None or source.startswith("/dev/") else source

    def _backing(self, node: str) -> str | None:
        source = self.sysfs.read(f"{node}/loop/backing_file")
        return None if source is None else source.removesuffix(" (deleted)")

    def _caches(self, folder: str) -> Iterator[str]:
        """The devices of a bcache's cache set; `cache0` leads to the folder `bcache` of one."""
        for name in filter(_CACHE.fullmatch, self.sysfs.names(folder)):
            if cache := node_at(self.host, f"{folder}/{name}"):
                yield cache.removesuffix("/bcache")
