"""The holder guard: hold the VFIO groups of devices that are about to go back, so that nobody opens one."""

from collections.abc import Sequence
from typing import cast

from hostdev_core.backend import Caller
from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import is_present
from hostdev_core.inventory.holders import check_cdev, check_node
from hostdev_core.inventory.vfio import check_guest, close_all, open_group
from hostdev_core.model.device import PCIDevice
from hostdev_core.model.record import Phase, Record
from hostdev_core.runtime.signals import signals_deferred


class Guard:
    """The open nodes of VFIO groups, which open once; closed once, by its lane or by `close`."""

    def __init__(self) -> None:
        self._opened: list[int] = []

    def hold(self, caller: Caller, members: Sequence[Record]) -> None:
        """Open the groups' nodes: EBUSY means that a process has one; success keeps others out.

        Asked only for devices that something is to be undone of; a USB device is asked for its own
        node. Raises DeviceInUseError naming the holders; some nodes may be open then.
        """
        host = caller.host
        touched = [record for record in members if _is_touched(host, record)]
        for record in touched:
            _check_record(caller, record)
        lent = {record.group for record in touched if record.phase is not Phase.PREPARING}
        asked: set[int | None] = set()
        for group, name in _groups(host, touched).items():
            with signals_deferred():
                if (fd := open_group(host, group, name, must_see=group in lent)) is not None:
                    self._opened.append(fd)
                    asked.add(group)
        for record in touched:
            must_see = record.phase is not Phase.PREPARING
            check_cdev(host, record.address, asked=record.group in asked, must_see=must_see)
        for record in members:
            if not host.buses[record.kind].has_steps and record.phase is not Phase.PREPARING:
                check_node(host, record)

    def take(self) -> "Guard":
        """Hand the open nodes to whoever lets go of them from now on; nothing is left to close here."""
        taken = Guard()
        taken._opened, self._opened = self._opened, []
        return taken

    def close(self) -> None:
        """Let go of the groups; a second time is harmless."""
        while self._opened:
            close_all([self._opened.pop()])


def _is_touched(host: Host, record: Record) -> bool:
    if not is_present(host, record):
        return False
    return record.phase is not Phase.PREPARING or (record.confirmed and not record.listed)


def _groups(host: Host, members: Sequence[Record]) -> dict[int, str]:
    groups = {record.group: record.address for record in members if record.group is not None}
    if any(record.phase is Phase.PREPARING for record in members):
        keys = {record.key for record in members}  # their guest may hold the group rightly
        for other in host.ledger.records():
            group = other.group if other.is_lent and other.key not in keys else None
            if group in groups and is_present(host, other):
                groups.pop(group)
    return groups


def _check_record(caller: Caller, record: Record) -> None:
    name = record.owner.driver if record.owner else record.backend
    backend = caller.find_backend(name)
    if backend is None:
        if record.group is None and record.phase is Phase.RELEASING:
            raise not_loaded(record.address, name)  # nobody can tell whether a guest has it
        return
    device = caller.host.buses[record.kind].read(record.address)
    if device is not None:
        check_guest(backend.about(record.owner), cast("PCIDevice", device))


def not_loaded(address: str, name: str) -> StateError:
    """The error for a record whose driver is not there to undo its part."""
    return StateError(
        f"{address} was lent by driver {name!r}, which is not loaded; install its plugin, then"
        " `hostdev recover`"
    )
