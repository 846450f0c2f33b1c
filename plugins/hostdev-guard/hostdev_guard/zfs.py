"""Which block devices a ZFS pool is on.

The kernel does not say: ZFS opens its members without leaving a holder, and only zpool(8) asks the
module. udev reads the label of each block device and keeps it in its database.
"""

import os
from functools import cached_property

from hostdev_core import Host
from hostdev_guard.blocks import Blocks

MEMBER = "zfs_member"


class Pools:
    """The pools of one host, as /proc/spl and udev's database tell of them."""

    def __init__(self, host: Host, blocks: Blocks) -> None:
        self.host = host
        self.blocks = blocks

    @cached_property
    def imported(self) -> tuple[str, ...]:
        """The imported pools: each has a folder there."""
        folder = self.host.path("proc/spl/kstat/zfs")
        try:
            with os.scandir(folder) as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_dir()))
        except FileNotFoundError:
            return ()

    def members(self, pool: str) -> tuple[str, ...]:
        """The block devices that udev takes for members of this pool."""
        return tuple(node for node, label in self._labels.items() if label == (MEMBER, pool))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The block devices whose content udev does not know to be something else."""
        return tuple(node for node, (type_, _) in self._labels.items() if type_ in {None, MEMBER})

    @cached_property
    def _labels(self) -> dict[str, tuple[str | None, str | None]]:
        """What udev found on each block device: a file system (or a partition table), its label."""
        return {node: self._label(node) for node in self.blocks.all.values()}

    def _label(self, node: str) -> tuple[str | None, str | None]:
        found = self.host.udev.recorded(node)
        type_ = found.get("ID_FS_TYPE") or found.get("ID_PART_TABLE_TYPE")
        return type_, found.get("ID_FS_LABEL")
