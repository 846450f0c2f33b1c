"""VFIO's devices: `vfio-dev/vfioN`, and since Linux 6.6 a character device of each (device_cdev.c)."""

import os
import re
from contextlib import suppress
from itertools import count

from hostdev_core.simulated.kernel import late
from hostdev_core.simulated.kernel.device import Device
from hostdev_core.simulated.kernel.disk import Disk, names, remove_tree, unlink

_SINCE = (6, 6)
_MAJOR = 511  # as the kernel takes it, from the top


def settle_device(disk: Disk, device: Device, *, present: bool, isolated: bool) -> None:
    """Let `vfio-dev/vfioN` be in the device's directory, or not; no node without an IOMMU (vfio.h)."""
    if not present:
        return drop_device(disk, device)
    folder = f"{device.path}/vfio-dev"
    inside = names(folder)
    name = inside[0] if inside else _take_number(disk, device)
    os.makedirs(f"{folder}/{name}", exist_ok=True)
    if isolated and _has_cdevs(disk) and not os.path.exists(f"{folder}/{name}/dev"):
        if not os.path.exists(_node(disk, name)):
            os.makedirs(f"{disk.root}/dev/vfio/devices", exist_ok=True)
            late.make_node(disk, _node(disk, name), 0o600)
        disk.put(f"{folder}/{name}/dev", f"{_MAJOR}:{name.removeprefix('vfio')}\n")
    return None


def drop_device(disk: Disk, device: Device) -> None:
    """Remove the VFIO device and its node.

    The directory goes last: a process that goes on after a killed one finds by it what is left to remove.
    """
    folder = f"{device.path}/vfio-dev"
    for name in names(folder):
        late.drop(disk, _node(disk, name))
        unlink(f"{folder}/{name}/dev")
        unlink(f"{disk.sys}/class/vfio-dev/{name}")
        unlink(_node(disk, name))
    remove_tree(folder)


def _has_cdevs(disk: Disk) -> bool:
    """Tell whether the kernel has CONFIG_VFIO_DEVICE_CDEV, as distributions' have since 6.6."""
    numbers = re.match(r"(\d+)\.(\d+)", str(disk.recall("machine").get("release")), re.A)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _SINCE


def _node(disk: Disk, name: str) -> str:
    return f"{disk.root}/dev/vfio/devices/{name}"


def _take_number(disk: Disk, device: Device) -> str:
    """Take the first free name; the link under /sys/class is the reservation, as symlink(2) is atomic."""
    folder = f"{disk.sys}/class/vfio-dev"
    taken = set(names(folder))
    for number in count():
        name = f"vfio{number}"
        if name not in taken:
            with suppress(FileExistsError):
                target = os.path.relpath(f"{device.path}/vfio-dev/{name}", folder)
                os.symlink(target, f"{folder}/{name}")
                return name
    raise AssertionError("numbers do not end")
