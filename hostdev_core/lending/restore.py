"""Restore: bring claimed devices back to where they were found. The one way back, for rollback,
reattach, recovery and one device alike.

Three steps, each of which returns a value: guard the groups so that nobody can open them; restore the
devices, IOMMU groups in parallel; settle the records. Every device is tried although another failed; a
record goes only when its device is seen as it was found.
"""

from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import attrs

from hostdev_core.backend import Caller
from hostdev_core.errors import KernelError, StateError
from hostdev_core.inventory.drift import is_there
from hostdev_core.ledger.transaction import Transaction
from hostdev_core.lending.holder_guard import Guard
from hostdev_core.lending.stuck import leave_late, mark_stuck
from hostdev_core.lending.undo import Freed, Undo
from hostdev_core.lending.writer import Writer, by_lane
from hostdev_core.model.outcome import Errors, Outcome
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.conflicts import is_orphaned
from hostdev_core.runtime.lanes import Lane, Round, run_lanes
from hostdev_core.runtime.operation import Operation


@attrs.frozen
class Guarded:
    """Records by lane, whose devices nobody can open now; `errors` are those of devices that stay."""

    lanes: Mapping[Hashable, tuple[Sequence[Record], Guard]]
    errors: Errors

    @property
    def records(self) -> list[Record]:
        """The records that are about to be restored."""
        return [record for members, _ in self.lanes.values() for record in members]


@attrs.frozen
class Restored:
    """How one lane ended: the records whose devices are back, the errors, and the devices let go of.

    Siblings that followed are among them. `freed` are others at the addresses of devices that are gone.
    """

    home: tuple[Record, ...] = ()
    errors: Errors = attrs.field(factory=dict[str, Exception])
    freed: Freed = ()

    def plus(self, other: "Restored") -> "Restored":
        """Both together."""
        errors = self.errors | other.errors
        return Restored(self.home + other.home, errors, self.freed + other.freed)


class Restore:
    """Restores the devices of records that are claimed for one operation."""

    def __init__(self, caller: Caller, operation: Operation) -> None:
        self._caller = caller
        self._host = caller.host
        self._operation = operation
        self._undo = Undo(caller, Writer(caller.host, operation.fd))

    def restore(self, records: Iterable[Record]) -> Outcome:
        """Restore the records' devices, and settle the records.

        A device that a process holds stays lent, and its error is a DeviceInUseError naming that.
        """
        with self.guarded(records) as guarded:
            return self.go(guarded)

    @contextmanager
    def guarded(self, records: Iterable[Record]) -> Generator[Guarded]:
        """Hold the groups of these records for the block; a lane that begins in it lets go by itself.

        Devices that somebody has stay as they are, and their records go back to rest.
        """
        lanes: dict[Hashable, tuple[Sequence[Record], Guard]] = {}
        errors: Errors = {}
        guards: list[Guard] = []
        try:
            for key, members in by_lane(records).items():
                guards.append(guard := Guard())
                try:
                    guard.hold(self._caller, members)
                    lanes[key] = members, guard
                except (
                    Exception
                ) as error:  # a backend's own, too: the others are restored all the same
                    guard.close()
                    errors |= self._keep(members, error)
            yield Guarded(lanes, errors)
        finally:
            for guard in guards:
                guard.close()

    def go(self, guarded: Guarded) -> Outcome:
        """Restore guarded devices, different IOMMU groups in parallel, and settle their records."""
        jobs = {
            key: partial(self._job, members, guard)
            for key, (members, guard) in guarded.lanes.items()
        }
        round_ = run_lanes(jobs, operation=self._operation, listen=self._host.listen_to_kernel)
        return self._settle(guarded, round_)

    def _job(self, members: Sequence[Record], guard: Guard, lane: Lane) -> Restored:
        """One lane's work, which has the guard from here on, however late it ends."""
        return self.restore_lane(lane, members, guard.take())

    def restore_lane(
        self, lane: Lane, members: Sequence[Record], guard: Guard | None = None
    ) -> Restored:
        """Restore the members of one lane, last taken first.

        A sibling that stayed on its stub for their group alone follows.
        """
        home: list[Record] = []
        followers: list[Record] = []
        errors: Errors = {}
        freed: list[tuple[str, str | None]] = []
        try:
            for record in reversed(members):
                try:
                    arrived, let_go = self._undo.run(lane, record)
                    followers += self._end(record, is_there=arrived)
                    home.insert(0, record)
                    freed += let_go
                except Exception as error:
                    errors[record.address] = error
                    mark_stuck(self._host, record, error)
        finally:
            if guard is not None:
                guard.close()
        done = Restored(tuple(home), errors, tuple(freed))
        return done.plus(self._follow(lane, followers)) if followers else done

    def _follow(self, lane: Lane, followers: Sequence[Record]) -> Restored:
        guard = Guard()
        try:
            guard.hold(self._caller, followers)
        except Exception as error:
            guard.close()
            return Restored(errors=self._keep(followers, error))
        return self.restore_lane(lane, followers, guard)

    def _end(self, record: Record, *, is_there: bool) -> list[Record]:
        """End a record, or put it back on the list; claimed are siblings without a reason to stay now."""
        with self._host.ledger.transaction() as transaction:
            if record.rests_on_list and is_there:
                transaction.update(record, record.on_list())
            else:
                transaction.delete(record)
            return [*self._claim_orphaned(transaction, record.group)]

    def _claim_orphaned(self, transaction: Transaction, group: int | None) -> Iterator[Record]:
        holds = partial(is_there, self._host)
        records = [] if group is None else [*filter(holds, transaction.records(group=group))]
        for record in records:
            if is_orphaned(record, records):
                mine = record._replace(phase=Phase.RELEASING, op=self._operation.id)
                if transaction.update(record, mine):
                    yield mine

    def _keep(self, members: Sequence[Record], error: Exception) -> Errors:
        """Put the records of devices that are not restored, held or without a lane, back to rest; or
        mark them stuck, when they stand half way.
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
        """Whether it is still where its guest has it: nothing was restored of it yet."""
        if record.phase is not Phase.RELEASING or record.stuck is not None:
            return False
        with suppress(KernelError):
            bus = self._host.buses[record.kind]
            return not bus.has_steps or record.stub == bus.kernel_driver(record.address)
        return False

    def _settle(self, guarded: Guarded, round_: Round[Hashable, Restored]) -> Outcome:
        """Say in the records of lanes that did not end why they stand still; the outcome of all."""
        done = Restored(errors=guarded.errors)
        for key, (members, _) in guarded.lanes.items():
            if key in round_.results:
                done = done.plus(round_.results[key])
            else:
                done = done.plus(Restored(errors=self._unfinished(key, members, round_)))
        return Outcome(done.home, done.errors, round_.interrupted, done.freed)

    def _unfinished(
        self, key: Hashable, members: Sequence[Record], round_: Round[Hashable, Restored]
    ) -> Errors:
        error = round_.errors.get(key)
        if lane := round_.late.get(key):
            working = self._working(members)
            error = leave_late(self._host, lane, working)
            return {record.address: error for record in (*members, *working)}
        if isinstance(error, Exception) and key in round_.unstarted:
            return self._keep(members, error)
        if not isinstance(error, Exception):
            never = round_.interrupted or error
            error = StateError(f"its way home was interrupted ({never!r}); `hostdev recover`")
        return {record.address: error for record in members}

    def _working(self, members: Sequence[Record]) -> list[Record]:
        """The records that a late lane is at work on: its members, and siblings that followed since."""
        keys = {record.key for record in members}
        groups = {record.group for record in members} - {None}
        return [
            record
            for record in self._host.ledger.records()
            if record.op == self._operation.id and (record.key in keys or record.group in groups)
        ]
