"""Restore claimed devices to where they were found: the one way back of rollback, reattach, recovery
and a single device.

Three steps, each of which returns a value: guard the VFIO groups, so that no process can open them;
restore the devices, different IOMMU groups in parallel; settle the records. The failure of one device
stops no other. A record is deleted only when its device is seen as it was found.
"""

from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import attrs

from hostdev_core.backend import Caller
from hostdev_core.errors import KernelError, StateError
from hostdev_core.inventory.drift import owns_place
from hostdev_core.ledger.transaction import Transaction
from hostdev_core.lending.holder_guard import Askers, Guard
from hostdev_core.lending.stuck import mark_late, mark_stuck
from hostdev_core.lending.undo import Freed, Undo
from hostdev_core.lending.writer import Writer, by_lane
from hostdev_core.model.assignment import Errors, Outcome
from hostdev_core.model.device import Device
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.conflicts import is_orphaned
from hostdev_core.runtime.lane_report import LaneReport
from hostdev_core.runtime.lanes import Lane, run_lanes
from hostdev_core.runtime.operation import Operation


@attrs.frozen
class Guarded:
    """The records by lane, with the guard that keeps processes from opening their devices.

    `errors` are those of the devices that could not be guarded, and are not restored.
    """

    lanes: Mapping[Hashable, tuple[Sequence[Record], Guard]]
    errors: Errors

    @property
    def records(self) -> list[Record]:
        """The records that are about to be restored."""
        return [record for members, _ in self.lanes.values() for record in members]


@attrs.frozen
class Restored:
    """The result of one lane: the records whose devices are restored, and the errors by address.

    Siblings that followed are among them. `freed` are other devices, which stand at the addresses of
    devices that are gone: the address of each, and the driver that it is on now.
    """

    records: tuple[Record, ...] = ()
    errors: Errors = attrs.field(factory=dict[str, Exception])
    freed: Freed = ()

    def plus(self, other: "Restored") -> "Restored":
        """Add the result of another lane to this one."""
        errors = self.errors | other.errors
        return Restored(self.records + other.records, errors, self.freed + other.freed)


class Restore:
    """Restores devices whose records are claimed for one operation."""

    def __init__(self, caller: Caller, operation: Operation) -> None:
        self._host = caller.host
        self._operation = operation
        self._askers = Askers(caller)
        self._undo = Undo(caller, Writer(caller.host, operation.fd))

    def restore(self, records: Iterable[Record]) -> Outcome:
        """Restore the records' devices, and settle the records.

        A device that a process holds stays lent, and its error is a DeviceInUseError that names the
        process.
        """
        with self.guarded(records) as guarded:
            return self.go(guarded)

    @contextmanager
    def guarded(self, records: Iterable[Record], seen: Iterable[Device] = ()) -> Generator[Guarded]:
        """Hold the VFIO groups of these records during the block; a lane that starts in it takes over the
        guard, and closes it.

        Devices that are in use stay as they are, and their records go back to rest. `seen` are devices of
        theirs as read a moment ago.
        """
        known = {(device.kind, device.name): device for device in seen}
        lanes: dict[Hashable, tuple[Sequence[Record], Guard]] = {}
        errors: Errors = {}
        guards: list[Guard] = []
        try:
            for key, members in by_lane(records).items():
                guards.append(guard := Guard())
                try:
                    guard.hold(self._askers, members, known)
                    lanes[key] = members, guard
                # Of any type, as a backend may raise its own: the other lanes are restored anyway.
                except Exception as error:
                    guard.close()
                    errors |= self._settle_unrestored(members, error)
            yield Guarded(lanes, errors)
        finally:
            # Closes nothing for lanes that have begun: they took the nodes, and may run on when late.
            for guard in guards:
                guard.close()

    def go(self, guarded: Guarded) -> Outcome:
        """Restore guarded devices, different IOMMU groups in parallel, and settle their records."""
        jobs = {
            key: partial(self._job, members, guard)
            for key, (members, guard) in guarded.lanes.items()
        }
        report = run_lanes(jobs, operation=self._operation, listen=self._host.listen_to_kernel)
        return self._settle(guarded, report)

    def _job(self, members: Sequence[Record], guard: Guard, lane: Lane) -> Restored:
        """Restore one lane, in its thread, which keeps the guard until it ends, however late."""
        return self.restore_lane(lane, members, guard.take())

    def restore_lane(
        self, lane: Lane, members: Sequence[Record], guard: Guard | None = None
    ) -> Restored:
        """Restore the members of one lane, the last taken first, and then orphaned siblings.

        A device that fails is marked stuck with the reason. The guard is closed in any case.
        """
        restored: list[Record] = []
        followers: list[Record] = []
        errors: Errors = {}
        freed: list[tuple[str, str | None]] = []
        try:
            for record in reversed(members):
                try:
                    arrived, let_go = self._undo.run(lane, record)
                    followers += self._end(record, is_there=arrived)
                    restored.insert(0, record)
                    freed += let_go
                except Exception as error:
                    errors[record.address] = error
                    mark_stuck(self._host, record, error)
        finally:
            # Before the followers: VFIO opens a group once, and they are guarded anew.
            if guard is not None:
                guard.close()
        done = Restored(tuple(restored), errors, tuple(freed))
        return done.plus(self._follow(lane, followers)) if followers else done

    def _follow(self, lane: Lane, followers: Sequence[Record]) -> Restored:
        """Guard and restore siblings that were orphaned by the restored devices, in the same lane."""
        guard = Guard()
        try:
            guard.hold(self._askers, followers)
        except Exception as error:
            guard.close()
            return Restored(errors=self._settle_unrestored(followers, error))
        return self.restore_lane(lane, followers, guard)

    def _end(self, record: Record, *, is_there: bool) -> list[Record]:
        """Delete a restored device's record, or put it back on the inactive list.

        Returns the siblings that this has orphaned, claimed for this operation.
        """
        # One transaction: no other call sees the siblings orphaned and not yet claimed.
        with self._host.ledger.transaction() as transaction:
            if record.rests_on_list and is_there:
                transaction.update(record, record.on_list())
            else:
                transaction.delete(record)
            return [*self._claim_orphaned(transaction, record.group)]

    def _claim_orphaned(self, transaction: Transaction, group: int | None) -> Iterator[Record]:
        """Claim the siblings that stayed on their stub for this IOMMU group alone, now without a user."""
        owns = partial(owns_place, self._host)
        # The kernel reuses the numbers of groups: a record whose device is gone is no member any more.
        records = [] if group is None else [*filter(owns, transaction.of_group(group))]
        for record in records:
            if is_orphaned(record, records):
                mine = record._replace(phase=Phase.RELEASING, op=self._operation.id)
                if transaction.update(record, mine):
                    yield mine

    def _settle_unrestored(self, members: Sequence[Record], error: Exception) -> Errors:
        """Put the records of devices that are not restored (in use, or without a lane) back to rest.

        Where one of them stands half way, all are marked stuck with the error. Returns it by address.
        """
        rest = all(self._is_untouched(record) for record in members)
        for record in members:
            if rest:
                with self._host.ledger.transaction() as transaction:
                    transaction.update(record, record.at_rest())
            else:
                mark_stuck(self._host, record, error)
        return {record.address: error for record in members}

    def _is_untouched(self, record: Record) -> bool:
        """Whether nothing of a device was restored yet: it is still on its stub, as its guest has it."""
        if record.phase is not Phase.RELEASING or record.stuck is not None:
            return False
        with suppress(KernelError):  # a driver that cannot be read is not known to be the stub
            bus = self._host.buses[record.kind]
            return not bus.has_steps or record.stub == bus.kernel_driver(record.address)
        return False

    def _settle(self, guarded: Guarded, report: LaneReport[Hashable, Restored]) -> Outcome:
        """Add up the lanes' results; the records of lanes that did not end get the reason."""
        done = Restored(errors=guarded.errors)
        for key, (members, _) in guarded.lanes.items():
            if key in report.results:
                done = done.plus(report.results[key])
            else:
                done = done.plus(Restored(errors=self._unfinished(key, members, report)))
        return Outcome(done.records, done.errors, report.interrupted, done.freed)

    def _unfinished(
        self, key: Hashable, members: Sequence[Record], report: LaneReport[Hashable, Restored]
    ) -> Errors:
        """The errors, by address, of a lane without a result: late, not started, or interrupted."""
        error = report.errors.get(key)
        if lane := report.late.get(key):
            # None, when it has just ended after all: its members are named all the same.
            working = self._working(members) or members
            error = mark_late(self._host, lane, working)
            return {record.address: error for record in (*members, *working)}
        if isinstance(error, Exception) and key in report.unstarted:
            return self._settle_unrestored(members, error)
        # The records keep this operation's id, so that a recovery finds them when it has ended.
        if not isinstance(error, Exception):
            never = report.interrupted or error
            error = StateError(f"its way home was interrupted ({never!r}); `hostdev recover`")
        return {record.address: error for record in members}

    def _working(self, members: Sequence[Record]) -> Sequence[Record]:
        """The records that a late lane works on: its members, and siblings that followed meanwhile."""
        keys = {record.key for record in members}
        groups = {record.group for record in members} - {None}
        return [
            record
            for record in self._host.ledger.read(lambda r: r.of_operation(self._operation.id)) or ()
            if record.key in keys or record.group in groups
        ]
