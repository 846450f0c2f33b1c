"""Undo the steps of one device, the kernel's and its backend's, from wherever the device is now."""

import errno
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from hostdev_core.backend import Caller
from hostdev_core.errors import DeviceNotFoundError, KernelError, StateError
from hostdev_core.lending.holder_guard import not_loaded
from hostdev_core.lending.writer import Writer
from hostdev_core.model.plan import Step, UndoBackend, UndoStep, steps_from_json
from hostdev_core.model.record import Found, Record
from hostdev_core.planning.steps import steps_back, wants_probe
from hostdev_core.runtime.lanes import Lane

Freed = tuple[tuple[str, str | None], ...]  # addresses, each with the kernel driver there


class Undo:
    """Restores one device at a time to where its record says that it was found."""

    def __init__(self, caller: Caller, writer: Writer) -> None:
        self._caller = caller
        self._host = caller.host
        self._writer = writer

    def run(self, lane: Lane, record: Record) -> tuple[bool, Freed]:
        """Restore one device to where it was found.

        Returns whether it is there now, and the devices that were freed. One that is gone, or replaced
        by another, is not touched; only its backend's traces are removed. KernelError, StateError or
        DeviceNotFoundError when a device that is there could not be restored.
        """
        bus = self._host.buses[record.kind]
        # No write precedes the confirmation of a claim. A device from the inactive list was confirmed
        # when it was detached: it may have a backend's traces to remove.
        if not bus.has_steps or not (record.confirmed or record.listed):
            return True, ()
        if self._is_in_place(record):
            if record.rests_on_list:
                return True, ()
            try:
                self._walk(lane, record)
            except (KernelError, DeviceNotFoundError, StateError):
                # It may have been unplugged in the middle: then there is nothing to restore.
                if self._is_in_place(record):
                    raise
            if self._is_in_place(record):
                return True, ()
        return False, self._forget_traces(lane, record)

    def _is_in_place(self, record: Record) -> bool:
        return self._host.buses[record.kind].locate(record) == "there"

    def _forget_traces(self, lane: Lane, record: Record) -> Freed:
        """Undo the backend's own steps for a device that is gone: nothing else of it is left.

        Such a trace may have taken another device that came to the address. The undo frees that one;
        its address and its driver are returned.
        """
        before = self._seen_at(record)
        for step in reversed(steps_from_json(record.steps)):
            self._undo_backend(lane, record, UndoBackend(step), gone=True)
        after = self._seen_at(record)
        # The inode is the same: one device, which the undo took from its driver.
        if before and after and before[0] == after[0] and before != after:
            return ((record.address, after[1]),)
        return ()

    def _seen_at(self, record: Record) -> tuple[int | None, str | None] | None:
        """Read the inode and the driver of the device at a record's address; None where none is seen."""
        with suppress(KernelError):
            bus = self._host.buses[record.kind]
            if inode := self._host.sysfs.inode(bus.path(record.address)):
                return inode, bus.kernel_driver(record.address)
        return None

    def _walk(self, lane: Lane, record: Record) -> None:
        """Carry out the steps from where the device is to where it was found."""
        steps = self._steps(lane, record)
        if steps and type(first := steps[0]) is Step and first.action == "load":
            self._carry_out(lane, record, first)
            # A module that is loaded binds a device without a driver by itself: read it again.
            steps = self._steps(lane, record)
        for step in steps:
            if type(step) is Step:
                self._carry_out(lane, record, step)
            elif isinstance(step, UndoBackend):
                self._undo_backend(lane, record, step)

    def _steps(self, lane: Lane, record: Record) -> list[UndoStep]:
        """Read where the device is, and plan the steps from there."""
        former, bus = record.found.kernel_driver, self._host.buses[record.kind]
        loaded = former is None or self._host.sysfs.exists(f"{bus.root}/drivers/{former}")
        if wants_probe(record) and (module := record.found.module):
            loaded = self._host.modules.is_loaded(module)
        present = self._read_present(lane, record)
        return steps_back(record, present, steps_from_json(record.steps), driver_loaded=loaded)

    def _carry_out(self, lane: Lane, record: Record, step: Step) -> None:
        """Carry out one kernel step; a probe that the driver defers gets a note that says so."""
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
        """Let the record's backend undo its step; StateError when its driver is not loaded.

        For a device that is `gone`, the backend removes only the step's traces.
        """
        backend = self._caller.find_backend(record.backend)
        if backend is None:
            raise not_loaded(record.address, record.backend)
        backend = backend.about(record.owner)
        ask: Callable[..., None] = backend.forget_step if gone else backend.undo_step
        self._writer.run(lane, str(undo), partial(ask, undo.step), gone=gone)

    def _read_present(self, lane: Lane, record: Record) -> Found:
        """Read the device's driver and override, within the deadline of an attribute."""
        bus, name = self._host.buses[record.kind], record.address
        # Filled in the lane's thread: the read waits for the device's lock, and may hang.
        present: list[Found] = []

        def read() -> None:
            if not self._host.sysfs.exists(bus.path(name)):
                raise DeviceNotFoundError(
                    f"there is no {bus.kind.upper()} device {name}", device=name
                )
            present.append(Found(bus.kernel_driver(name), bus.driver_override(name)))

        lane.do(f"read {name}", bus.path(name), self._host.deadlines.attribute, read)
        return present[0]
