"""The holder guard: who holds a VFIO group is asked of the kernel, not of a list."""

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hostdev_core import answers
from hostdev_core.address import PCIAddress
from hostdev_core.answers import Backend
from hostdev_core.context import Context
from hostdev_core.drift import whereabouts
from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.forks import close_private, open_private
from hostdev_core.holders import identity
from hostdev_core.holding import (
    UDEV_SECONDS,
    cdev_nodes,
    check_cdev,
    check_usb_record,
    held_error,
    unseen_error,
)
from hostdev_core.host import Host
from hostdev_core.interrupts import held_back
from hostdev_core.pci import PCIDevice, read_pci
from hostdev_core.record import Phase, Record
from hostdev_core.vfio_nodes import group_node

if TYPE_CHECKING:
    from hostdev_core.connection import Connection


def guard_groups(conn: "Connection", members: Sequence[Record], opened: list[int]) -> None:
    """Open the groups' nodes: EBUSY means that a process has one; success keeps others out.

    Asked only for devices that something is to be undone of; a USB device is asked for its own node.
    Raises DeviceInUseError naming the holders. The caller closes what it finds in `opened`, also
    after an error.
    """
    host = conn.host
    touched = [record for record in members if _is_touched(host, record)]
    for record in touched:
        _check_record(conn, record)
    lent = {record.group for record in touched if record.phase is not Phase.PREPARING}
    asked: set[int | None] = set()
    for group, name in _groups(host, touched).items():
        with held_back():
            if (fd := open_group(host, group, name, must_see=group in lent)) is not None:
                opened.append(fd)
                asked.add(group)
    for record in touched:
        must_see = record.phase is not Phase.PREPARING
        check_cdev(host, record.address, asked=record.group in asked, must_see=must_see)
    for record in members:
        if record.kind == "usb" and record.phase is not Phase.PREPARING:
            check_usb_record(host, record)


def close_all(descriptors: Sequence[int]) -> None:
    """Let go of guarded groups."""
    for fd in descriptors:
        close_private(fd)


def _is_touched(host: Host, record: Record) -> bool:
    if record.kind != "pci" or whereabouts(host, record) != "there":
        return False
    return record.phase is not Phase.PREPARING or (record.confirmed and not record.listed)


def _groups(host: Host, members: Sequence[Record]) -> dict[int, str]:
    groups = {record.group: record.address for record in members if record.group is not None}
    if any(record.phase is Phase.PREPARING for record in members):
        keys = {record.key for record in members}  # their guest may hold the group rightly
        for other in host.ledger.records():
            group = other.group if other.is_lent and other.key not in keys else None
            if group in groups and whereabouts(host, other) == "there":
                groups.pop(group)
    return groups


def _check_record(conn: "Connection", record: Record) -> None:
    name = record.owner.driver if record.owner else record.backend
    backend = conn.backend(name)
    if backend is None:
        if record.group is None and record.phase is Phase.RELEASING:
            raise not_loaded(record.address, name)  # nobody can tell whether a guest has it
        return
    device = read_pci(conn.host.sysfs, PCIAddress.parse(record.address))
    _check_guest(conn, backend, device, Context.of(conn, backend, record.owner))


def check_holders(
    conn: "Connection",
    backend: Backend,
    device: PCIDevice,
    context: Context | None = None,
    *,
    asked: bool = False,
) -> None:
    """Raise DeviceInUseError for a device that a process or guest outside the ledger has.

    By the backend's knowledge, or by the device's own character device: with iommufd no VFIO group is
    opened (Documentation/driver-api/vfio.rst, "VFIO Device cdev"). `asked`: its group's node was
    opened.
    """
    _check_guest(conn, backend, device, context or Context.of(conn, backend))
    check_cdev(conn.host, device.name, asked=asked)


def _check_guest(conn: "Connection", backend: Backend, device: PCIDevice, context: Context) -> None:
    if names := answers.holders(backend, conn.host, device, context):
        raise held_error(device.name, names)


def not_loaded(address: str, name: str) -> StateError:
    """The error for a record whose driver is not there to undo its part."""
    return StateError(
        f"{address} was lent by driver {name!r}, which is not loaded; install its plugin, then"
        " `hostdev recover`"
    )


def open_group(host: Host, group: int, device: str, *, must_see: bool = True) -> int | None:
    """Open a VFIO group's node, which opens once; None where there is no such node.

    A process that is forked meanwhile does not hold it; `close_all` closes it. Nobody can have had a
    device yet that never was lent: one whose node has not come goes home without it (`must_see`).

    Raises DeviceInUseError naming the processes that have it, StateError where the kernel has a node
    for the group (class/vfio) and this process does not see it, or another group's in its place.
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
