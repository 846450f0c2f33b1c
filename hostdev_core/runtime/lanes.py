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
from typing import Generic, TypeGuard, TypeVar, cast

from hostdev_core.errors import HostdevError, KernelTimeoutError, StateError
from hostdev_core.kernel.log import KernelLog
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


class CancelledError(HostdevError):
    """Another lane failed, or this one is overdue: its job stops before the next step, and undoes."""


class Lane:
    """One job and the thread that does it.

    `doing`, `path` and `until` (its deadline) are of the write under way, `kernel` is the kernel's log
    since that began. `find_users`, which a job may set for a write, names the users of the device, also
    by dependents that it had before.
    """

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
        self.result: object = None
        self.error: BaseException | None = None
        self.kernel = KernelLog()
        self._coordinator = coordinator
        self._job = job

    def do(self, doing: str, path: str, seconds: float, work: Callable[[], None]) -> None:
        """Do `work`, one write to `path`; past `seconds` the lane counts as overdue."""
        with self._coordinator.changed:
            self.doing, self.path, self.until = doing, path, time.monotonic() + seconds
            self.find_users = None
            self._coordinator.changed.notify_all()
        self.kernel.mark()
        log.log(PROGRESS, "begins: %s", doing, extra={"begins": doing})
        try:
            work()
        finally:
            with self._coordinator.changed:
                self.until = None
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
        with self._coordinator.changed:
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
        with self._coordinator.changed:
            self.ended = True
            self._coordinator.changed.notify_all()

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
    """Starts the lanes of one `run_lanes` and waits for them; `changed` guards all that they share."""

    def __init__(self, operation: Operation | None, all_or_none: bool, listen: Listen) -> None:
        self.operation = operation
        self.listen = listen
        self.changed = threading.Condition()
        self.cancelled = False
        self.lanes: dict[Hashable, Lane] = {}
        self._all_or_none = all_or_none

    def run(self, jobs: "Mapping[Hashable, Callable[[Lane], object]]") -> None:
        """Start the jobs that have no lane yet; return when every lane has ended or is overdue.

        After an exception (an interrupt) a second call goes on.
        """
        with self.changed:
            while True:
                running = self._running()
                waiting = () if self.cancelled else [key for key in jobs if key not in self.lanes]
                if not running and not waiting:
                    return
                starting = waiting[: MOST_LANES - len(running)]
                for key in starting:
                    self._start(key, jobs[key])
                if not starting:
                    ends = [lane.until for lane in running if lane.until is not None]
                    left = min(ends) - time.monotonic() if ends else SIGNAL_LATENCY
                    if not self.changed.wait(max(0.0, min(left, SIGNAL_LATENCY))):
                        for lane in running:
                            lane.check_thread()

    def _running(self) -> list[Lane]:
        moment = time.monotonic()
        for lane in self.lanes.values():
            late = lane.until is not None and lane.until <= moment
            # For good, also when it is back before the others have ended: its job may have seen it.
            lane.overdue |= not lane.ended and (late or lane.has_died)
            if self._all_or_none and (lane.overdue or lane.error is not None):
                self.cancelled = True
        return [lane for lane in self.lanes.values() if not (lane.ended or lane.overdue)]

    def _start(self, key: Hashable, job: Callable[[Lane], object]) -> None:
        """Start a lane, then put it into `lanes`: one whose start is interrupted is started anew."""
        lane = Lane(self, key, job)
        try:
            with signals_deferred():
                LaneThread(lane).start()
        except RuntimeError as error:
            lane.error = StateError(
                f"nothing was done about {key}: {error}; raise the limit of this process, or of its"
                " control group, and try again"
            )
            lane.ended = True
        self.lanes[key] = lane


class LaneReport(Generic[K, T]):
    """The results and errors of the lanes of one `run_lanes`, by key; `late` are those left behind.

    `unstarted` are those of the ended ones whose job never began: no thread, or no kernel log for it.
    `interrupted` is the exception of the waiting thread (KeyboardInterrupt, or a signal handler's): the
    lanes were told to stop, and their results and errors are here all the same.
    """

    def __init__(self, lanes: "dict[K, Lane]", interrupted: BaseException | None) -> None:
        ended = {key: lane for key, lane in lanes.items() if lane.ended and not lane.failed_late}
        self.results: dict[K, T] = {
            key: cast("T", lane.result) for key, lane in ended.items() if lane.error is None
        }
        self.errors: dict[K, BaseException] = {
            key: lane.error for key, lane in ended.items() if lane.error is not None
        }
        self.unstarted = {key for key, lane in ended.items() if not lane.has_begun}
        self.late = {key: lane for key, lane in lanes.items() if key not in ended}
        self.keys = lanes.keys()
        self.interrupted = interrupted


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


def raise_first(report: LaneReport[K, T]) -> None:
    """Raise the exception that interrupted the lanes, or their first error, CancelledError last of all."""
    if report.interrupted is not None:
        raise report.interrupted
    # A CancelledError is the consequence of another lane's failure, which tells more.
    errors = sorted(report.errors.values(), key=lambda error: isinstance(error, CancelledError))
    for error in errors:
        raise error
    for lane in report.late.values():
        raise KernelTimeoutError(
            f"{lane.doing}: has not returned in time", path=lane.path, value=""
        )
