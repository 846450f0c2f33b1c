"""Undo all that was done to one device: its steps, and those of its backend."""

import errno
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from hostdev_core.backend import Caller
from hostdev_core.errors import DeviceNotFoundError, KernelError, StateError
from hostdev_core.lending.holder_guard import not_loaded
from hostdev_core.lending.writer import Writer
from hostdev_core.model.record import Found, Record
from hostdev_core.model.steps import HomeStep, Step, UndoBackend, steps_from_json
from hostdev_core.planning.steps import steps_home, wants_probe
from hostdev_core.runtime.lanes import Lane

Freed = tuple[tuple[str, str | None], ...]


class Undo:
    """Brings one device at a time to where its record says that it was found."""

    def __init__(self, caller: Caller, writer: Writer) -> None:
        self._caller = caller
        self._host = caller.host
        self._writer = writer

    def run(self, lane: Lane, record: Record) -> tuple[bool, Freed]:
        """Bring one device to where it was found; False for one that is gone, or replaced: that is left
        alone.

        One from the list was confirmed when it came there: its traces go with it.
        """
        bus = self._host.buses[record.kind]
        if not bus.has_steps or not (record.confirmed or record.listed):
            return True, ()
        if self._is_there(record):
            if record.rests_on_list:
                return True, ()
            try:
                self._walk(lane, record)
            except (KernelError, DeviceNotFoundError, StateError):
                if self._is_there(record):
                    raise
            if self._is_there(record):
                return True, ()
        return False, self._forget_traces(lane, record)

    def _is_there(self, record: Record) -> bool:
        return self._host.buses[record.kind].whereabouts(record) == "there"

    def _forget_traces(self, lane: Lane, record: Record) -> Freed:
        """Undo the backend's own part about a device that is gone, which leaves only that.

        Another one at its address may have been taken by that: it is free then, and answered.
        """
        before = self._seen_at(record)
        for step in reversed(steps_from_json(record.steps)):
            self._undo_backend(lane, record, UndoBackend(step), gone=True)
        after = self._seen_at(record)
        if before and after and before[0] == after[0] and before != after:
            return ((record.address, after[1]),)
        return ()

    def _seen_at(self, record: Record) -> tuple[int | None, str | None] | None:
        """Which device is at a record's address, and on which driver; None where none is seen."""
        with suppress(KernelError):
            bus = self._host.buses[record.kind]
            if inode := self._host.sysfs.inode(bus.path(record.address)):
                return inode, bus.kernel_driver(record.address)
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
        former, bus = record.found.kernel_driver, self._host.buses[record.kind]
        loaded = former is None or self._host.sysfs.exists(f"{bus.root}/drivers/{former}")
        if wants_probe(record) and (module := record.found.module):
            loaded = self._host.modules.is_loaded(module)
        present = self._read_present(lane, record)
        return steps_home(record, present, steps_from_json(record.steps), driver_loaded=loaded)

    def _carry_out(self, lane: Lane, record: Record, step: Step) -> None:
        try:
            self._writer.carry_out(lane, step, record)
        except KernelError as error:
            if step.action == "bind" and error.errno == errno.EAGAIN:
                error.add_note(
                    f"{step.value} waits for something else (deferred probe); try again later"
                )
            raise

    def _undo_backend(
        self, lane: Lane, record: Record, undo: UndoBackend, *, gone: bool = False
    ) -> None:
        backend = self._caller.find_backend(record.backend)
        if backend is None:
            raise not_loaded(record.address, record.backend)
        backend = backend.about(record.owner)
        ask: Callable[..., None] = backend.forget_step if gone else backend.undo_step
        self._writer.run(lane, str(undo), partial(ask, undo.step), gone=gone)

    def _read_present(self, lane: Lane, record: Record) -> Found:
        bus, name = self._host.buses[record.kind], record.address
        present: list[Found] = []

        def read() -> None:
            if bus.read(name) is None:
                raise DeviceNotFoundError(
                    f"there is no {bus.kind.upper()} device {name}", device=name
                )
            present.append(Found(bus.kernel_driver(name), bus.driver_override(name)))

        lane.do(f"read {name}", bus.path(name), self._host.deadlines.attribute, read)
        return present[0]
