"""Ask the kernel whether a process has a device's VFIO group or node open; no list can tell."""

import errno
import os
from collections.abc import Sequence

from hostdev_core.backend import CheckedBackend
from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.holders import (
    UDEV_SECONDS,
    cdev_nodes,
    check_cdev,
    held_error,
    unseen_error,
)
from hostdev_core.kernel.processes import identity
from hostdev_core.kernel.vfio import group_node
from hostdev_core.model.device import PCIDevice
from hostdev_core.runtime.forks import close_private, open_private


def open_group(host: Host, group: int, device: str, *, must_see: bool = True) -> int | None:
    """Open a VFIO group's node, which opens once; None when there is no such node.

    A process that is forked meanwhile does not hold it; `close_all` closes it. Without `must_see`, for a
    device that never was lent, a node that udev has not made yet counts as none: no process had it.

    Raises DeviceInUseError naming the processes that have it, StateError when the kernel has a node
    for the group (class/vfio) and this process does not see it, or sees another group's in its place.
    """
    node = group_node(host.sysfs, group)
    place = f"class/vfio/{node.rpartition('/')[2]}"
    number = host.sysfs.read(f"{place}/dev")
    for _ in range(2):
        if (fd := _open_node(host, node, device)) is not None:
            if host.is_node(identity(os.fstat(fd)), number):
                return fd
            close_private(fd)
        if not must_see or not host.sysfs.exists(place):
            return None
        host.udev.wait_for(host.path(node), UDEV_SECONDS, number)  # udev may be about to make it
    raise unseen_error(host, device, f"a VFIO node for IOMMU group {group}", node)


def _open_node(host: Host, node: str, device: str) -> int | None:
    try:
        return open_private(lambda: host.open_node(node))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotPermittedError(
            f"may not open {host.path(node)}: {error.strerror}; run as root"
        ) from error
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise StateError(f"cannot open {host.path(node)}: {error.strerror}") from error
        holders = host.holders([node, *cdev_nodes(host, device)]) or host.vfio_users(device)
        raise held_error(device, [str(holder) for holder in holders]) from None


def close_all(descriptors: Sequence[int]) -> None:
    """Close the nodes that `open_group` returned."""
    for fd in descriptors:
        close_private(fd)


def check_holders(backend: CheckedBackend, device: PCIDevice, *, asked: bool = False) -> None:
    """Raise DeviceInUseError for a device that a process or guest outside the ledger has.

    The backend is asked, and the device's own character device is looked for: with iommufd no VFIO group
    is opened (Documentation/driver-api/vfio.rst, "VFIO Device cdev"). `asked`: its group's node was
    opened.
    """
    check_guest(backend, device)
    if device.is_vfio:
        check_cdev(backend.host, device.name, asked=asked)


def check_guest(backend: CheckedBackend, device: PCIDevice) -> None:
    """Raise DeviceInUseError for a device that a guest has, as its hypervisor's backend tells."""
    if names := backend.holders(device):
        raise held_error(device.name, names)
