"""Run a call that changes the host in a worker process, which goes on when the caller gives up or dies.

A thread that waits in the kernel cannot be killed, and keeps its process alive. A caller that must come
back in time therefore lets another process write, and returns when that answers. The worker's log records
go to the caller's loggers, over the same pipe as its answer.

A process of one thread is forked. One of several never is: each lock that another thread has at that
moment would be taken for ever in the fork (the one of a stream, of logging, of a plugin, of an import).
A new interpreter makes the call then, which gets it as data. Where a harness watches the host, the
process is forked in any case, with all that the harness has open.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from hostdev_core.errors import LEFT_BEHIND, WAS_DONE, StateError
from hostdev_core.runtime.forks import explaining_shortages
from hostdev_core.runtime.signals import STOPS, signals_deferred
from hostdev_core.worker.patience import Patience
from hostdev_core.worker.pipe import Answer, CallerReader, CallHook
from hostdev_core.worker.process import WorkerWriter, detach_all_but, run_and_exit

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.worker.call_data import CallData

T = TypeVar("T")
Start = Callable[[CallerReader], int]  # starts the worker and returns its pid
# Seconds to wait for the exit of a worker: of one that has answered but has threads left, and of one that
# is dead or has none.
GRACE = 0.2
EXIT_TIMEOUT = 10.0
log = logging.getLogger("hostdev")
# Pids of workers whose exit status a later call collects. Children are the process's, not a connection's:
# a worker may outlive the call and the connection that started it.
_uncollected: set[int] = set()


def run_in_worker(
    conn: "Connection", method: Callable[..., T], *arguments: object, **keywords: object
) -> T:
    """Call this method of a connection in a process of its own session; its result, or what it raised.

    An exception in the waiting thread (KeyboardInterrupt, or what a signal handler raises) tells the
    worker to stop; it undoes, which is logged, and the exception is raised when it has, with the
    worker's own last error as notes. A change that was complete before is returned instead; an exception
    that comes later still says so in a note, WAS_DONE. A second exception returns at once and leaves the
    worker undoing, which a note says.

    A worker that is stopped, or silent for long, is left: StateError names it.
    """
    patience = Patience(conn.host.deadlines)
    is_watched = conn.host.sysfs.watcher is not None
    if is_watched or _is_single_threaded():
        call = lambda: method(conn, *arguments, **keywords)  # noqa: E731
        start, pipe = _by_fork(call, keep_all=is_watched), CallerReader(patience)
    else:
        start, pipe = _by_interpreter(conn, method.__name__, arguments, keywords, patience)
    pipe.changes = not conn.read_only
    answer = _run(start, pipe)
    if isinstance(answer.value, BaseException):
        raise answer.value
    return answer.value  # type: ignore[no-any-return]


def _is_single_threaded() -> bool:
    """Whether this thread is the process's only one, as the kernel knows them (proc(5))."""
    # Not threading.active_count(), which misses the threads of C libraries.
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


# Two ways to start one.


def _by_fork(call: Callable[[], object], *, keep_all: bool) -> Start:
    def start(pipe: CallerReader) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()  # signals to the caller's process group or terminal do not reach it
                writer = pipe.close_in_worker()
                if not keep_all:
                    detach_all_but({writer})
                run_and_exit(call, WorkerWriter(writer))
            finally:
                os._exit(1)
        return pid

    _flush_streams()
    return start


def _by_interpreter(
    conn: "Connection",
    method: str,
    arguments: tuple[object, ...],
    keywords: dict[str, object],
    patience: Patience,
) -> tuple[Start, CallerReader]:
    from hostdev_core.worker.call_data import make_call_data

    call = make_call_data(conn, method, arguments, keywords)
    return _spawning(call), CallerReader(
        patience, _hook_caller(conn) if call.needs_caller else None
    )


def _hook_caller(conn: "Connection") -> CallHook:
    from hostdev_core.worker.remote_hooks import call_hook

    return lambda call: call_hook(conn, call)


def _spawning(call: "CallData") -> Start:
    def start(pipe: CallerReader) -> int:
        return spawn(data, pipe.worker_fds)

    from hostdev_core.worker.call_data import to_pickle
    from hostdev_core.worker.interpreter import spawn

    data = to_pickle(call)
    return start


# Waiting for it.


def _run(start: Start, pipe: CallerReader) -> Answer:
    """Start the worker and return its answer; StateError when it ends without one."""
    answer: Answer | None = None
    _collect()
    try:
        # Stop signals are blocked, so that a fork does not run the caller's handlers for them; all are
        # deferred, so that no handler raises before the worker's pid is known.
        with _blocked(STOPS) as mask, pipe, ExitStack() as deferral:
            deferral.enter_context(signals_deferred())
            with explaining_shortages():
                pid = start(pipe)
            try:
                answer = _wait(pipe, pid, mask, deferral.close)
            finally:
                _reap(pid, answer, pipe)
    except BaseException as error:
        if answer is not None and answer.done:
            error.add_note(WAS_DONE)
        raise
    if answer is None:
        raise _no_answer(pid, pipe)
    return answer


def _wait(
    pipe: CallerReader, pid: int, mask: Iterable[int], end_deferral: Callable[[], object]
) -> Answer | None:
    """Return the worker's answer, with signals handled again; the first that raises stops the worker.

    `end_deferral` raises here what handlers raise for the signals that arrived during the start.
    """
    try:
        pipe.watch(pid)
        end_deferral()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        answer = pipe.read_answer()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    except BaseException as error:
        pipe.stop()
        answer = _read_answer_of_stopped(pipe, pid)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        # A call that was complete before the worker was told to stop is answered as usual.
        if answer is None or not answer.done:
            for line in _notes_of(answer.value if answer else _no_answer(pid, pipe)):
                error.add_note(line)
            raise
    return answer


def _read_answer_of_stopped(pipe: CallerReader, pid: int) -> Answer | None:
    """Read the answer of a worker that was told to stop; an error meanwhile notes that it goes on."""
    try:
        if pipe.changes:
            log.warning("stopped: undoing what was begun; once more leaves that to the worker")
        return pipe.read_answer()
    except BaseException as again:
        if pipe.changes:
            again.add_note(
                f"{LEFT_BEHIND} {pid}, which goes on; `hostdev status` tells what it has not given"
                " back yet"
            )
        raise


def _notes_of(end: BaseException) -> Iterator[str]:
    """Yield the notes that tell how the undo ended: the worker's error, unless it just stopped."""
    if not isinstance(end, KeyboardInterrupt):
        yield str(end)
    yield from getattr(end, "__notes__", ())


def _no_answer(pid: int, pipe: CallerReader) -> StateError:
    """Make the error for a worker that was left, or ended without an answer."""
    if pipe.patience.reason:
        error = StateError(
            f"the worker (pid {pid}) {pipe.patience.reason}; it was left alone, and has what it works on"
        )
        error.add_note(
            f"what it has could not be given back so far; `kill -CONT {pid}` lets a stopped one go on,"
            " `hostdev status` tells what becomes of it, and `hostdev recover` gives back what a dead one had"
        )
        return error
    if not pipe.has_started:
        return StateError(
            f"the worker (pid {pid}) ended without an answer, before it began; nothing was changed."
            " Where Python is a part of another program, multiprocessing.set_executable() names an"
            " interpreter for it"
        )
    error = StateError(f"the worker (pid {pid}) ended without an answer")
    error.add_note("what it had taken could not be given back; `hostdev recover` does that")
    return error


def _reap(pid: int, answer: Answer | None, pipe: CallerReader) -> None:
    """Collect the worker when it exits soon; one that goes on is collected by a later call, or by init.

    Most that have answered exit in a moment: their last threads are about to end. A dying process closes
    its pipe before it unlocks its files, so its exit is waited for: a caller that is told of its death
    finds the locks free.
    """
    is_ending = pipe.is_dead or (answer is not None and not answer.lingers)
    seconds = EXIT_TIMEOUT if is_ending else GRACE if answer is not None else 0.0
    pipe.wait_for_exit(seconds)
    _uncollected.add(pid)
    until = time.monotonic() + seconds
    while _collect(pid) and time.monotonic() < until:
        time.sleep(GRACE / 50)


def _collect(pid: int | None = None) -> bool:
    """Collect the workers that have exited meanwhile; return whether the one with this pid has not."""
    for each in [*_uncollected]:
        try:
            if os.waitpid(each, os.WNOHANG)[0]:
                _uncollected.discard(each)
        except ChildProcessError:  # other code has collected it, or this is a fork of its parent
            _uncollected.discard(each)
    return pid in _uncollected


@contextmanager
def _blocked(signals: Iterable[signal.Signals]) -> Generator[Iterable[int]]:
    """Block these signals in this thread for the block; yield the mask from before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _flush_streams() -> None:
    """Write out buffered text, which a fork would write a second time."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            stream.flush()  # type: ignore[union-attr]  # None is an AttributeError
