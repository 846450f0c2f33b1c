"""What the host's drivers have made of its devices: network interfaces, disks and DRM nodes, by their names.

Found by one reading of /sys/class/net, block and drm, whose links lead through the device of each entry
(Documentation/ABI/testing/sysfs-class-net, stable/sysfs-block): no device's own directory is searched.
"""

from typing import NamedTuple

from hostdev_core.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from hostdev_core.kernel.sysfs import Sysfs

CLASSES = ("net", "block", "drm")
Key = tuple[str, str]
# Class and name of an entry, and whether it is a part: a partition of a disk, a connector of a card.
Entry = tuple[str, str, bool]


class ClassDevices(NamedTuple):
    """The class devices of all devices, by kind and name of these; `unread` says why some are not known."""

    by_device: dict[Key, list[Entry]]
    unread: str | None = None

    def names(self, key: Key, class_: str) -> list[str]:
        """The names of a device's interfaces ("net"), disks ("block") or nodes ("drm"), without parts."""
        entries = self.by_device.get(key)
        if entries is None:
            return []
        return [name for of, name, is_part in entries if of == class_ and not is_part]

    def all_names(self, key: Key) -> list[str]:
        """The names of all that a device has, parts included."""
        return [name for _, name, _ in self.by_device.get(key, ())]

    def find(self, name: str) -> Key | None:
        """Find the device that has an entry of this name; None without one."""
        return next((key for key in self.by_device if name in self.all_names(key)), None)


def read_class_devices(sysfs: "Sysfs", devices: "Mapping[str, Collection[str]]") -> ClassDevices:
    """Read the three classes, for the devices of these names by their kind.

    One that cannot be seen is left out, with the reason.
    """
    found: dict[Key, list[Entry]] = {}
    unread: str | None = None
    for class_ in CLASSES:
        try:
            for key, entry in _entries(sysfs, class_, devices):
                found.setdefault(key, []).append(entry)
        except KernelError as error:
            unread = str(error)
    return ClassDevices(found, unread)


def _entries(
    sysfs: "Sysfs", class_: str, devices: "Mapping[str, Collection[str]]"
) -> "Iterator[tuple[Key, Entry]]":
    with sysfs.directory(f"class/{class_}") as folder:
        names = folder.names() if folder is not None else []
        known = {*names}
        for name in names:
            assert folder is not None
            parts = (folder.target(name) or "").split("/")
            key = _nearest(parts, devices)
            if key is not None:
                above = parts[-2]
                shown = _disk_of(name) if class_ == "block" else name
                yield key, (class_, shown, above in known and above != class_)


def _nearest(parts: "list[str]", devices: "Mapping[str, Collection[str]]") -> Key | None:
    """The last device on the way to an entry: it has made the entry; None for one of no device."""
    for part in reversed(parts):
        for kind, names in devices.items():
            if part in names:
                return kind, part
    return None


def _disk_of(name: str) -> str:
    """The disk of one path to it: an NVMe disk of several has its node elsewhere, without the path's "c0"
    (drivers/nvme/host/multipath.c).
    """
    controller, path, rest = name.partition("c")
    return f"{controller}n{rest.partition('n')[2]}" if path and name[:4] == "nvme" else name
