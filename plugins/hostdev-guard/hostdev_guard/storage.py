"""Which block devices the host uses, and what each of them stands on.

Found by what the kernel shows of itself: mounts, swaps, super blocks, `slaves`. A volume or an array
that is only active, and a disk that is only full of data, are not used.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

from hostdev_core import Host
from hostdev_guard.blocks import Blocks
from hostdev_guard.chains import Use
from hostdev_guard.mounts import Mount, read_mounts, read_swaps
from hostdev_guard.rules import BOOT, MOUNTED, ROOT, SWAP, ZFS
from hostdev_guard.zfs import Pools

BOOT_POINTS = ("/boot", "/efi")
SUPER_BLOCKS = ("ext4", "xfs", "f2fs")  # those that the kernel lists in /sys/fs by device
MORE_DEVICES = ("logdev", "rtdev")  # mount options of xfs


class Storage:
    """The mounts and swaps of one host, read once."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.mounts = read_mounts(host)
        self.blocks = Blocks(host)
        self.pools = Pools(host, self.blocks)

    def uses(self) -> Iterator[Use]:
        """Everything that is mounted or swapped to."""
        mounted = [use for mount in self.mounts for use in self._of_mount(mount)]
        yield from mounted
        yield from self._swaps()
        yield from self._pools()
        yield from self._elsewhere({node for use in mounted for node in use.nodes})

    def below(self, node: str) -> Iterator[str]:
        """What a block device stands on: its disk, the members of a volume, a loop's file system."""
        yield from self.blocks.below(node)
        if (file := self.blocks.backing_file(node)) is not None:
            yield from self._holding(file)

    def _of_mount(self, mount: Mount) -> Iterator[Use]:
        pool = mount.source.partition("/")[0] if mount.type == "zfs" else None
        words = (
            f"{mount.point} is on" if pool is None else f"{mount.point} is in ZFS pool {pool}, on"
        )
        if nodes := self._nodes(mount):
            yield Use(_rule_of(mount.point), words, nodes)

    def _nodes(self, mount: Mount) -> tuple[str, ...]:
        """The block devices of a mount; those without one (overlay, NFS, tmpfs) have none."""
        if mount.type == "zfs":
            return self.pools.members(mount.source.partition("/")[0])
        if not mount.number.startswith("0:"):
            numbered = self.blocks.numbered(mount.number) or self.blocks.named(mount.source)
            return tuple(filter(None, (numbered, *self._more(mount))))
        if mount.type.startswith("fuse") or not mount.source.startswith("/dev/"):
            return ()  # what a FUSE mount calls its source is any user's choice
        sources = filter(None, map(self.blocks.named, mount.source.split(":")))
        members = [self._btrfs_of.get(node, (node,)) for node in sources]
        return tuple(dict.fromkeys(node for group in members for node in group))

    def _more(self, mount: Mount) -> Iterator[str | None]:
        for option in mount.options:
            name, _, value = option.partition("=")
            if name in MORE_DEVICES:
                yield self.blocks.named(value)

    @cached_property
    def _btrfs(self) -> tuple[tuple[str, ...], ...]:
        """The members of each btrfs that is mounted anywhere: only such ones are in /sys/fs."""
        names = self.host.sysfs.names
        folders = [f"fs/btrfs/{name}/devices" for name in names("fs/btrfs")]
        members = [map(self.blocks.called, names(folder)) for folder in folders]
        return tuple(tuple(filter(None, nodes)) for nodes in members)

    @cached_property
    def _btrfs_of(self) -> dict[str, tuple[str, ...]]:
        return {node: members for members in self._btrfs for node in members}

    def _swaps(self) -> Iterator[Use]:
        for swap in read_swaps(self.host):
            if swap.is_file:
                yield Use(SWAP, f"swap file {swap.path} is on", self._holding(swap.path))
            elif node := self.blocks.named(swap.path):
                yield Use(SWAP, "swap is on", (node,))

    def _holding(self, path: str) -> tuple[str, ...]:
        """What the file system stands on that a file lies on; the last mount at a point counts."""
        holding = [mount for mount in self.mounts if mount.holds(path)]
        if not holding:
            return ()
        longest = max(len(mount.point) for mount in holding)
        return self._nodes([m for m in holding if len(m.point) == longest][-1])

    def _pools(self) -> Iterator[Use]:
        """Pools without a mount (volumes are used otherwise), and those that may be anywhere."""
        mounted = {m.source.partition("/")[0] for m in self.mounts if m.type == "zfs"}
        for pool in dict.fromkeys((*sorted(mounted), *self.pools.imported)):
            members = self.pools.members(pool)
            if not members:
                yield Use(ZFS, f"ZFS pool {pool} may be on", self.pools.candidates)
            elif pool not in mounted:
                yield Use(MOUNTED, f"ZFS pool {pool} is on", members)

    def _elsewhere(self, known: set[str]) -> Iterator[Use]:
        """Super blocks that the kernel has of mounts that were not seen: in other namespaces, mostly."""
        for type_ in SUPER_BLOCKS:
            names = self.host.sysfs.names(f"fs/{type_}")
            yield from _hidden(type_, filter(None, map(self.blocks.called, names)), known)
        for members in self._btrfs:
            yield from _hidden("btrfs", members, known)


def _hidden(type_: str, nodes: Iterable[str], known: set[str]) -> Iterator[Use]:
    for node in nodes:
        if node not in known:
            yield Use(MOUNTED, f"a mounted {type_} is on", (node,))


def _rule_of(point: str) -> str:
    if point == "/":
        return ROOT
    is_boot = any(point == boot or point.startswith(f"{boot}/") for boot in BOOT_POINTS)
    return BOOT if is_boot else MOUNTED
