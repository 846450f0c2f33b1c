"""Carry out steps in threads, lanes in parallel, every write under a deadline.

A lane is a thread that does its steps in order. A write cannot be interrupted: a lane whose write is
overdue is left behind, and its job learns from `lane.overdue` that the caller waits for it no more, and
that it has to clear up by itself. A kernel that crashes in a write ends the thread that made it, and
Python is not told: such a lane has died, and must not be waited for.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeGuard, TypeVar

from hostdev_core.errors import StateError
from hostdev_core.kernel.log import KernelLog
from hostdev_core.runtime.lane_report import CancelledError, LaneReport
from hostdev_core.runtime.operation import Operation
from hostdev_core.runtime.signals import signals_deferred

log = logging.getLogger("hostdev")
PROGRESS = (
    15  # the level of what tells that something begins (`record.begins`), or has ended (`ends`)
)
MOST_LANES = 64
_THREADS = "/proc/self/task"  # proc(5): a folder for each thread that the kernel knows
# The kernel may hand a signal to a lane's thread, and Python calls its handler in the main thread, as
# soon as that wakes: so it never waits for longer than this, seconds.
SIGNAL_LATENCY = 1.0

Listen = Callable[[], KernelLog]
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Lane:
    """One job and the thread that does it.

    `doing`, `path` and `until` (its deadline) are of the write under way, `kernel` is the kernel's log
    since that began. `find_users`, which a job may set for a write, names the users of the device, also
    by dependents that it had before.
    """

    kernel = KernelLog()  # of none, until the lane begins

    def __init__(
        self, coordinator: "_Coordinator", key: Hashable, job: "Callable[[Lane], object]"
    ) -> None:
        self.key = key
        self.doing = ""
        self.path = ""
        self.find_users: Callable[[], tuple[str, ...]] | None = None
        self.until: float | None = None
        self.thread: int | None = None
        self.has_begun = False
        self.overdue = False
        self.has_died = False
        self.ended = False
        self.result: Any = None  # what its job returns
        self.error: BaseException | None = None
        self._coordinator = coordinator
        self._job = job

    def do(self, doing: str, path: str, seconds: float, work: Callable[[], None]) -> None:
        """Do `work`, one write to `path`; past `seconds` the lane counts as overdue."""
        self.find_users = None
        self.doing, self.path = doing, path
        self.until = until = time.monotonic() + seconds  # last: from now on the lane may be late
        if until < self._coordinator.wakes:
            self._coordinator.wake()
        self.kernel.mark()
        tells = self._coordinator.tells
        if tells:
            log.log(PROGRESS, "begins: %s", doing, extra={"begins": doing})
        try:
            work()
        finally:
            self.until = None
            if tells:
                log.log(PROGRESS, "ends: %s", doing, extra={"ends": doing})

    def check(self) -> None:
        """Raise CancelledError when this lane is to stop; a lane that undoes never asks."""
        if self.overdue:
            raise CancelledError(f"{self.doing} returned after its deadline")
        if self._coordinator.cancelled:
            raise CancelledError("stopped because something else failed")

    @property
    def failed_late(self) -> bool:
        """Whether it was overdue and then failed: its job has cleared up by itself, or is about to."""
        return self.overdue and self.error is not None

    def run(self) -> None:
        """Do the job; the thread's body. Do nothing when the start was interrupted or reported failed.

        The coordinator counts such a lane as not started, although its thread may run.
        """
        # The starting thread has the lock until this lane is in `lanes`, or will never be.
        with self._coordinator.lock:
            if self.ended or self._coordinator.lanes.get(self.key) is not self:
                return
            if self._coordinator.operation is not None:
                self._coordinator.operation.hold()
            self.thread = threading.get_native_id()
        try:
            with self._coordinator.listen() as self.kernel:
                self.has_begun = True
                self.result = self._job(self)
        except BaseException as error:
            self.error = error
        # Before the end is reported: the waiting thread may end the process as soon as it is.
        if self._coordinator.operation is not None:
            self._coordinator.operation.release()
        self._coordinator.end(self)

    def check_thread(self) -> None:
        """Look whether the kernel has ended the thread in a write, and release its operation then."""
        if self.ended or self.has_died or self.thread is None or not os.path.isdir(_THREADS):
            return
        self.has_died = not os.path.exists(f"{_THREADS}/{self.thread}")
        if self.has_died and self._coordinator.operation is not None:
            self._coordinator.operation.release()


class LaneThread(threading.Thread):
    """A lane's thread: the process exits after it, whichever thread started it (`wait_for_lanes`).

    It is a daemon thread all the same: Python would wait for ever for one that the kernel has ended.
    """

    def __init__(self, lane: Lane) -> None:
        super().__init__(target=lane.run, name=f"hostdev {lane.key}", daemon=True)
        self._lane = lane

    def wait(self) -> None:
        """Wait until the lane has ended, or died."""
        while self.is_alive() and not self._lane.has_died:
            self.join(SIGNAL_LATENCY)
            self._lane.check_thread()


def wait_for_lanes() -> None:
    """Wait for all lanes of this process, and for those that begin meanwhile."""
    while lanes := [each for each in threading.enumerate() if is_running(each)]:
        for thread in lanes:
            thread.wait()


def is_running(thread: threading.Thread) -> TypeGuard[LaneThread]:
    """Whether it is a lane's thread that has not died."""
    return isinstance(thread, LaneThread) and not thread._lane.has_died  # pyright: ignore[reportPrivateUsage]


# Lanes are daemon threads, which Python would cut off at the exit, in the midst of an undo.
atexit.register(wait_for_lanes)


class _Coordinator:
    """Starts the lanes of one `run_lanes` and waits for them; `lock` guards what ends and begins.

    Lanes work without the lock: the waiting thread looks at their deadlines, and is woken only by the last
    lane that ends, by one that makes room for another, or by a deadline before `wakes`, when it wakes anyway.
    """

    def __init__(self, operation: Operation | None, all_or_none: bool, listen: Listen) -> None:
        self.operation = operation
        self.listen = listen
        self.lock = threading.Lock()
        self.tells = log.isEnabledFor(PROGRESS)
        self.cancelled = False
        self.wakes = 0.0
        self.lanes: dict[Hashable, Lane] = {}
        self._changed = threading.Condition(self.lock)
        self._all_or_none = all_or_none
        self._waiting: list[Hashable] = []

    def run(self, jobs: "Mapping[Hashable, Callable[[Lane], object]]") -> None:
        """Start the jobs that have no lane yet; return when every lane has ended or is overdue.

        After an exception (an interrupt) a second call goes on.
        """
        with self.lock:
            while True:
                running = self._running()
                waiting = [] if self.cancelled else [key for key in jobs if key not in self.lanes]
                if not running and not waiting:
                    return
                room = max(0, MOST_LANES - len(running))
                self._waiting = waiting[room:]
                with signals_deferred():
                    for key in waiting[:room]:
                        self._start(key, jobs[key])
                if not waiting[:room] and not self._wait(running):
                    for lane in running:
                        lane.check_thread()

    def _wait(self, running: "list[Lane]") -> bool:
        """Wait until a lane wakes this thread, or one may be late; whether it was woken."""
        until = self.wakes = _next_look(running)
        try:
            # Again: one that began meanwhile may have seen the former `wakes`.
            if (left := min(until, _next_look(running)) - time.monotonic()) > 0:
                return self._changed.wait(left)
            return False
        finally:
            self.wakes = 0.0

    def wake(self) -> None:
        """Wake the waiting thread: a deadline is nearer than it knows."""
        with self.lock:
            self._changed.notify()

    def end(self, lane: Lane) -> None:
        """Report the end of a lane; with all or none, one that failed stops the others."""
        with self.lock:
            lane.ended = True
            self.cancelled |= self._all_or_none and lane.error is not None
            running = [each for each in self.lanes.values() if not (each.ended or each.overdue)]
            if self._waiting or not running:
                self._changed.notify()

    def _running(self) -> list[Lane]:
        moment = time.monotonic()
        for lane in self.lanes.values():
            until = lane.until
            late = until is not None and until <= moment
            # For good, also when it is back before the others have ended: its job may have seen it.
            lane.overdue |= not lane.ended and (late or lane.has_died)
            self.cancelled |= self._all_or_none and lane.overdue
        return [lane for lane in self.lanes.values() if not (lane.ended or lane.overdue)]

    def _start(self, key: Hashable, job: Callable[[Lane], object]) -> None:
        lane = Lane(self, key, job)
        try:
            LaneThread(lane).start()
        except RuntimeError as error:
            lane.error = StateError(
                f"nothing was done about {key}: {error}; raise the limit of this process, or of its"
                " control group, and try again"
            )
            lane.ended = True
            self.cancelled |= self._all_or_none
        self.lanes[key] = lane


def _next_look(running: "list[Lane]") -> float:
    """When to look at these lanes, by time.monotonic(): at the first deadline, or for signals."""
    soon = time.monotonic() + SIGNAL_LATENCY
    return min([soon, *[until for lane in running if (until := lane.until) is not None]])


def run_lanes(
    jobs: Mapping[K, Callable[[Lane], T]],
    *,
    operation: Operation | None = None,
    all_or_none: bool = False,
    listen: Listen = KernelLog,
) -> LaneReport[K, T]:
    """Run the jobs in parallel and return when each has ended or is overdue.

    Each lane holds the `operation` until it ends, however late. With `all_or_none` the first that
    fails, or an interrupt, makes the others stop before their next step; without it, as in a restore,
    they go on. `listen` opens the kernel's log for a lane.
    """
    coordinator = _Coordinator(operation, all_or_none, listen)
    work: dict[Hashable, Callable[[Lane], object]] = dict(jobs.items())
    interrupted: BaseException | None = None
    while True:
        try:
            coordinator.run(work)
            return LaneReport(
                {key: coordinator.lanes[key] for key in jobs if key in coordinator.lanes},
                interrupted,
            )
        except BaseException as error:
            interrupted = interrupted or error
            coordinator.cancelled |= all_or_none
