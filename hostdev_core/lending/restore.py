"""The one way back: a device goes home, for whoever asks (rollback, reattach, recovery, one device).

The caller has claimed the records for its operation. Every device is tried although another failed;
a record goes only when the device is seen as it was found.
"""

import errno
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

from hostdev_core import backend as answers
from hostdev_core.bus.pci import read_driver, read_override, read_pci
from hostdev_core.errors import DeviceNotFoundError, KernelError, StateError
from hostdev_core.inventory.drift import is_there, whereabouts
from hostdev_core.inventory.vfio import close_all
from hostdev_core.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from hostdev_core.ledger.store import Transaction
from hostdev_core.lending.holder_guard import guard_groups, not_loaded
from hostdev_core.lending.stuck import leave_late, mark_stuck
from hostdev_core.lending.writer import Writer
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.context import Context
from hostdev_core.model.outcome import Errors, Outcome
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.model.steps import HomeStep, Step, UndoBackend, steps_from_json
from hostdev_core.planning.pci_rules import is_stranded
from hostdev_core.planning.steps import steps_home, wants_probe
from hostdev_core.runtime.lanes import Lane, Round, run_lanes
from hostdev_core.runtime.operation import Operation

if TYPE_CHECKING:
    from hostdev_core.connection import Connection

# Their remove or probe breaks when two run at once (ioatdma: bug 209041 of the kernel's bugzilla).
SERIAL_DRIVERS = frozenset({"ioatdma"})


class Homeward:
    """Brings claimed records home, different IOMMU groups in parallel."""

    def __init__(self, conn: "Connection", operation: Operation) -> None:
        self._conn = conn
        self._host = conn.host
        self._operation = operation
        self._writer = Writer(conn.host, operation.fd)
        self._freed: dict[str, str | None] = {}

    def bring_home(
        self, records: Iterable[Record], *, before: Callable[[list[Record]], None] | None = None
    ) -> Outcome:
        """Bring the records' devices home and settle the records.

        What a process holds stays lent, and its error is a DeviceInUseError naming it. `before` is
        called once nobody holds the rest any more and nobody can slip in.
        """
        groups = by_lane(records)
        errors: Errors = {}
        guards: dict[Hashable, list[int]] = {}
        jobs: dict[Hashable, Callable[[Lane], Errors]] = {}
        try:
            errors |= self._guard(groups, guards)
            going = [record for members in groups.values() for record in members]
            if before is not None and going:
                before(going)
            jobs |= {key: partial(self._go, groups[key], guards) for key in groups}
            round_ = run_lanes(jobs, operation=self._operation, listen=self._host.listen_to_kernel)
            idle = {key: groups.pop(key) for key in guards}  # their lanes never began
        finally:
            for key in list(guards):
                close_all(guards.pop(key))
        for key, members in idle.items():
            errors |= self._keep(members, cast("Exception", round_.errors[key]))
        return self._outcome(groups, errors, round_)

    def _guard(
        self, groups: dict[Hashable, list[Record]], guards: dict[Hashable, list[int]]
    ) -> Errors:
        """Guard all groups; those that somebody has leave `groups`."""
        errors: Errors = {}
        for key, members in list(groups.items()):
            guards[key] = []
            try:
                guard_groups(self._conn, members, guards[key])
            except Exception as error:  # a backend's own, too: the others go home all the same
                close_all(guards.pop(key))
                errors |= self._keep(groups.pop(key), error)
        return errors

    def _go(self, members: list[Record], guards: dict[Hashable, list[int]], lane: Lane) -> Errors:
        """One lane, which lets go of its groups when it ends, however late."""
        return self.go_home(lane, members, guards.pop(lane.key, ()))

    def go_home(self, lane: Lane, members: list[Record], guard: Sequence[int] = ()) -> Errors:
        """Bring the members of one lane home, last taken first; the errors by address.

        Who stayed on its stub for their group alone follows, and is a member then.
        """
        errors: Errors = {}
        followers: list[Record] = []
        try:
            for record in reversed(members):
                try:
                    followers += self._settle(record, is_there=self._restore(lane, record))
                except Exception as error:
                    errors[record.address] = error
                    mark_stuck(self._host, record, error)
        finally:
            close_all(guard)
        members += followers
        return errors | self._follow(lane, followers)

    def _follow(self, lane: Lane, followers: list[Record]) -> Errors:
        guard: list[int] = []
        try:
            guard_groups(self._conn, followers, guard)
        except Exception as error:
            close_all(guard)
            return self._keep(followers, error)
        return self.go_home(lane, followers, guard) if followers else {}

    def _restore(self, lane: Lane, record: Record) -> bool:
        """Bring one device to where it was found; False: it is gone, or replaced, which is left alone.

        One from the list was confirmed when it came there: its traces go with it.
        """
        if record.kind != "pci" or not (record.confirmed or record.listed):
            return True
        if self._is_there(record):
            if record.rests_on_list:
                return True
            try:
                self._walk(lane, record)
            except (KernelError, DeviceNotFoundError, StateError):
                if self._is_there(record):
                    raise
            if self._is_there(record):
                return True
        self._forget_traces(lane, record)
        return False

    def _is_there(self, record: Record) -> bool:
        return whereabouts(self._host, record) == "there"

    def _forget_traces(self, lane: Lane, record: Record) -> None:
        """A device that is gone leaves only what its backend did about it.

        Another one at its address may have been taken by that: it is free then.
        """
        before = self._seen_at(record)
        for step in reversed(steps_from_json(record.steps)):
            self._undo_backend(lane, record, UndoBackend(step), gone=True)
        after = self._seen_at(record)
        if before and after and before[0] == after[0] and before != after:
            self._freed[record.address] = after[1]

    def _seen_at(self, record: Record) -> tuple[int | None, str | None] | None:
        """Which device is at a record's address, and on which driver; None where none is seen."""
        with suppress(KernelError):
            if inode := self._host.sysfs.inode(f"{PCI_DEVICES}/{record.address}"):
                return inode, read_driver(self._host.sysfs, record.address)
        return None

    def _walk(self, lane: Lane, record: Record) -> None:
        steps = self._steps(lane, record)
        if steps and isinstance(first := steps[0], Step) and first.action == "load":
            self._carry_out(lane, record, first)
            steps = self._steps(lane, record)
        for step in steps:
            if isinstance(step, Step):
                self._carry_out(lane, record, step)
            else:
                self._undo_backend(lane, record, step)

    def _steps(self, lane: Lane, record: Record) -> list[HomeStep]:
        former = record.found.kernel_driver
        loaded = former is None or self._host.sysfs.exists(f"{PCI_DRIVERS}/{former}")
        if wants_probe(record) and (module := record.found.module):
            loaded = self._host.modules.is_loaded(module)
        present = self._read_present(lane, record)
        return steps_home(record, present, steps_from_json(record.steps), driver_loaded=loaded)

    def _carry_out(self, lane: Lane, record: Record, step: Step) -> None:
        try:
            self._writer.carry_out(lane, step, record.inode)
        except KernelError as error:
            if step.action == "bind" and error.errno == errno.EAGAIN:
                error.add_note(
                    f"{step.value} waits for something else (deferred probe); try again later"
                )
            raise

    def _undo_backend(
        self, lane: Lane, record: Record, undo: UndoBackend, *, gone: bool = False
    ) -> None:
        backend = self._conn.backend(record.backend)
        if backend is None:
            raise not_loaded(record.address, record.backend)
        ask = answers.forget_step if gone else answers.undo_step
        context = Context.of(self._conn, backend, record.owner)
        work = partial(ask, backend, self._host, undo.step, context)
        self._writer.run(lane, str(undo), work, gone=gone)

    def _read_present(self, lane: Lane, record: Record) -> Found:
        present: list[Found] = []
        path = f"{PCI_DEVICES}/{record.address}"

        def read() -> None:
            device = read_pci(self._host.sysfs, PCIAddress.parse(record.address))
            present.append(
                Found(device.kernel_driver, read_override(self._host.sysfs, record.address))
            )

        lane.do(f"read {record.address}", path, self._host.deadlines.attribute, read)
        return present[0]

    def _settle(self, record: Record, *, is_there: bool) -> list[Record]:
        """The record's end; claimed are those that have no reason to stay on their stub any more."""
        with self._host.ledger.transaction() as transaction:
            if record.rests_on_list and is_there:
                transaction.update(record, record.on_list())
            else:
                transaction.delete(record)
            return [*self._claim_stranded(transaction, record.group)]

    def _claim_stranded(self, transaction: Transaction, group: int | None) -> Iterator[Record]:
        holds = partial(is_there, self._host)
        records = [] if group is None else [*filter(holds, transaction.records(group=group))]
        for record in records:
            if is_stranded(record, records):
                mine = record._replace(phase=Phase.RELEASING, op=self._operation.id)
                if transaction.update(record, mine):
                    yield mine

    def _keep(self, members: Sequence[Record], error: Exception) -> Errors:
        """What does not set out, held or without a lane: back to rest, or stuck half way."""
        rest = all(self._is_untouched(record) for record in members)
        for record in members:
            if rest:
                with self._host.ledger.transaction() as transaction:
                    transaction.update(record, record.at_rest())
            else:
                mark_stuck(self._host, record, error)
        return {record.address: error for record in members}

    def _is_untouched(self, record: Record) -> bool:
        """Whether it is still where its guest has it: nothing of a way home was done yet."""
        if record.phase is not Phase.RELEASING or record.stuck is not None:
            return False
        with suppress(KernelError):
            return record.kind != "pci" or record.stub == read_driver(
                self._host.sysfs, record.address
            )
        return False

    def _outcome(
        self,
        groups: Mapping[Hashable, Sequence[Record]],
        errors: Errors,
        round_: Round[Hashable, Errors],
    ) -> Outcome:
        for key, members in groups.items():
            if lane := round_.late.get(key):
                late = leave_late(self._host, lane, members)
                errors |= {record.address: late for record in members}
            elif isinstance(error := round_.errors.get(key), Exception):
                errors |= {record.address: error for record in members}
            elif key in round_.results:
                errors |= round_.results[key]
            else:
                never = round_.interrupted or round_.errors.get(key)
                reason = StateError(f"its way home was interrupted ({never!r}); `hostdev recover`")
                errors |= {record.address: reason for record in members}
        home = [r for members in groups.values() for r in members if r.address not in errors]
        freed = tuple(self._freed.items())
        return Outcome(tuple(home), errors, round_.interrupted, freed)


def by_lane(records: Iterable[Record]) -> dict[Hashable, list[Record]]:
    """The records by what must go one after the other: an IOMMU group, or a fragile driver."""
    records = list(records)
    fragile = {
        r.group: r.found.kernel_driver for r in records if r.found.kernel_driver in SERIAL_DRIVERS
    }
    fragile.pop(None, None)
    lanes: dict[Hashable, list[Record]] = {}
    for record in records:
        key: Hashable = record.address if record.group is None else record.group
        if record.found.kernel_driver in SERIAL_DRIVERS:
            key = record.found.kernel_driver
        elif record.group in fragile:
            key = fragile[record.group]
        lanes.setdefault(key, []).append(record)
    return lanes
