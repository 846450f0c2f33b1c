"""The holder guard: hold the VFIO groups of devices while they are restored, so that no process opens one.

The kernel lets one process at a time open the node of a VFIO group: a successful open proves that no guest
has it, and keeps others out.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from hostdev_core.backend import Caller, CheckedBackend
from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import may_be_changed
from hostdev_core.inventory.holders import check_cdev, check_node
from hostdev_core.inventory.vfio import check_guest, close_all, open_group
from hostdev_core.model.device import Device, PCIDevice, UsedBy
from hostdev_core.model.near import near_to
from hostdev_core.model.record import Phase, Record
from hostdev_core.runtime.signals import signals_deferred


class Guard:
    """The open nodes of the VFIO groups of one lane.

    The lane that takes them closes them; those that no lane has taken are closed by the caller.
    """

    def __init__(self) -> None:
        self._opened: list[int] = []

    def hold(
        self,
        askers: "Askers",
        members: Sequence[Record],
        seen: Mapping[tuple[str, str], Device] | None = None,
    ) -> None:
        """Open the VFIO groups of the members; DeviceInUseError, naming the holders, when one is open.

        Devices with nothing to undo are not checked. A USB device is checked by its own node. Some
        groups may be held when an error is raised: call `close` then. `seen` are devices as read a moment
        ago, by the keys of their records.
        """
        host = askers.caller.host
        touched = [record for record in members if _is_touched(host, record)]
        for record in touched:
            askers.check(record, (seen or {}).get(record.key))
        # Nodes that udev has not made yet are missing for a device that never was lent; for a lent one,
        # a missing node means that nothing is known of its holders, and the device stays.
        lent = {record.group for record in touched if record.phase is not Phase.PREPARING}
        asked: set[int | None] = set()
        groups = _groups(host, touched)
        with signals_deferred():  # a signal between the open and the append would leak the node
            for group, name in groups.items():
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
        """Move the open nodes to a new guard, which the caller must close; this one is empty then."""
        taken = Guard()
        taken._opened, self._opened = self._opened, []
        return taken

    def close(self) -> None:
        """Close the open nodes; a second call does nothing."""
        while self._opened:  # popped first: an interrupted close is not made twice
            close_all([self._opened.pop()])


def _is_touched(host: Host, record: Record) -> bool:
    """Whether restoring a record may write to its device, so that a holder would notice."""
    if not may_be_changed(host, record):
        return False
    return record.phase is not Phase.PREPARING or (record.confirmed and not record.listed)


def _groups(host: Host, members: Sequence[Record]) -> dict[int, str]:
    """The groups to open, each with the address of a member for messages.

    The undo of a prepare leaves out groups that have another lent device.
    """
    groups = {record.group: record.address for record in members if record.group is not None}
    if any(record.phase is Phase.PREPARING for record in members):
        keys, near = {record.key for record in members}, near_to(members)
        for other in (host.ledger.read(lambda records: records.near(near)) or {}).values():
            group = other.group if other.is_lent and other.key not in keys else None
            # That device's guest holds the group by right: EBUSY would say nothing of these.
            if group in groups and may_be_changed(host, other):
                groups.pop(group)
    return groups


class Askers:
    """The hypervisors' backends that are asked about records, found once for each borrower."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._found: dict[tuple[str, UsedBy | None], CheckedBackend | None] = {}

    def check(self, record: Record, seen: Device | None) -> None:
        """Ask the hypervisor's backend whether a guest has the device; DeviceInUseError if so."""
        name = record.owner.driver if record.owner else record.backend
        backend = self._find(name, record.owner)
        if backend is None:
            if record.group is None and record.phase is Phase.RELEASING:
                # Without a VFIO group, the backend alone can tell whether a guest has the device.
                raise not_loaded(record.address, name)
            return
        device = seen or self.caller.host.buses[record.kind].read(record.address)
        if device is not None:
            check_guest(backend, cast("PCIDevice", device))

    def _find(self, name: str, owner: UsedBy | None) -> CheckedBackend | None:
        key = name, owner
        if key not in self._found:
            backend = self.caller.find_backend(name)
            self._found[key] = backend.about(owner) if backend is not None else None
        return self._found[key]


def not_loaded(address: str, name: str) -> StateError:
    """Build the error for a record whose hypervisor driver is not loaded, and cannot be asked."""
    return StateError(
        f"{address} was lent by driver {name!r}, which is not loaded; install its plugin, then"
        " `hostdev recover`"
    )
