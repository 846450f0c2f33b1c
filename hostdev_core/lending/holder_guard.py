"""The holder guard: who holds a VFIO group is asked of the kernel, not of a list."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hostdev_core.bus.pci import read_pci
from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import whereabouts
from hostdev_core.inventory.holders import (
    check_cdev,
    check_usb_record,
)
from hostdev_core.inventory.vfio import check_guest, open_group
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.context import Context
from hostdev_core.model.record import Phase, Record
from hostdev_core.runtime.signals import signals_deferred

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
        with signals_deferred():
            if (fd := open_group(host, group, name, must_see=group in lent)) is not None:
                opened.append(fd)
                asked.add(group)
    for record in touched:
        must_see = record.phase is not Phase.PREPARING
        check_cdev(host, record.address, asked=record.group in asked, must_see=must_see)
    for record in members:
        if record.kind == "usb" and record.phase is not Phase.PREPARING:
            check_usb_record(host, record)


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
    check_guest(conn, backend, device, Context.of(conn, backend, record.owner))


def not_loaded(address: str, name: str) -> StateError:
    """The error for a record whose driver is not there to undo its part."""
    return StateError(
        f"{address} was lent by driver {name!r}, which is not loaded; install its plugin, then"
        " `hostdev recover`"
    )
