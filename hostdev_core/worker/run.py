"""A change in a process of its own: it goes on when the caller is left or killed.

The kernel keeps a thread that waits in it, and with the thread its process. A caller that must come
back in time therefore lets another process write, and returns when that says so. What the worker
logs goes to the caller's loggers, over the same pipe as its answer.

A process of one thread is forked. One of several never is: each lock that another thread has at that
moment would be taken for ever in the fork (the one of a stream, of logging, of a plugin, of an import).
A new interpreter makes the call then, which gets it as data. Where a harness watches the host, all is
forked, with what the harness has open.
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
from hostdev_core.runtime.forks import starting
from hostdev_core.runtime.signals import held_back
from hostdev_core.worker.patience import Patience
from hostdev_core.worker.pipe import Answer, Ear, Serve
from hostdev_core.worker.process import STOPS as STOPS
from hostdev_core.worker.process import Mouth, let_go_of_all_but, work

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.worker.call_data import Errand

T = TypeVar("T")
Begin = Callable[[Ear], int]  # starts the worker; its pid
DYING = 0.2  # seconds
ENDING = 10.0
log = logging.getLogger("hostdev")
_late: set[int] = set()  # workers that went on; each is collected by a later call


def run_in_worker(
    conn: "Connection", method: Callable[..., T], *arguments: object, **keywords: object
) -> T:
    """Call this method of a connection in a process of its own session; its result, or what it raised.

    An exception in the waiting thread (KeyboardInterrupt, or what a signal handler raises) tells the
    worker to stop; it undoes, which is logged, and the exception is raised when it has, with the
    worker's last words as notes. A change that was complete before is returned instead; an exception
    that comes later still says so in a note, WAS_DONE. A second exception returns at once and leaves the
    worker undoing, which a note says.

    A worker that is stopped, or silent for long, is left: StateError names it.
    """
    patience = Patience(conn.host.deadlines)
    is_watched = conn.host.sysfs.watcher is not None
    if is_watched or _is_alone():
        call = lambda: method(conn, *arguments, **keywords)  # noqa: E731
        begin, ear = _forked(call, keep_all=is_watched), Ear(patience)
    else:
        begin, ear = _elsewhere(conn, method.__name__, arguments, keywords, patience)
    ear.changes = not conn.read_only
    answer = _wait_for(begin, ear)
    if isinstance(answer.value, BaseException):
        raise answer.value
    return answer.value  # type: ignore[no-any-return]


def _is_alone() -> bool:
    """Whether this thread is the process's only one, as the kernel knows them (proc(5))."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


# Two ways to start one.


def _forked(call: Callable[[], object], *, keep_all: bool) -> Begin:
    def begin(ear: Ear) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                writer = ear.leave()
                if not keep_all:
                    let_go_of_all_but({writer})
                work(call, Mouth(writer))
            finally:
                os._exit(1)
        return pid

    _flush()
    return begin


def _elsewhere(
    conn: "Connection",
    method: str,
    arguments: tuple[object, ...],
    keywords: dict[str, object],
    patience: Patience,
) -> tuple[Begin, Ear]:
    from hostdev_core.worker import call_data as errands

    errand = errands.make_errand(conn, method, arguments, keywords)
    return _spawned(errand), Ear(patience, _serving(conn) if errand.has_absent else None)


def _serving(conn: "Connection") -> Serve:
    from hostdev_core.worker.remote_hooks import serve

    return lambda ask: serve(conn, ask)


def _spawned(errand: "Errand") -> Begin:
    def begin(ear: Ear) -> int:
        return spawn(packed, ear.given)

    from hostdev_core.worker.call_data import pack
    from hostdev_core.worker.interpreter import spawn

    packed = pack(errand)
    return begin


# Waiting for it.


def _wait_for(begin: Begin, ear: Ear) -> Answer:
    """The worker's answer; StateError when there is none."""
    answer: Answer | None = None
    _collect()
    try:
        # A child must not run the caller's handlers; nor may they raise before its pid is known.
        with _held(STOPS) as mask, ear, ExitStack() as delay:
            delay.enter_context(held_back())
            with starting():
                pid = begin(ear)
            try:
                answer = _wait(ear, pid, mask, delay.close)
            finally:
                _reap(pid, answer, ear)
    except BaseException as error:
        if answer is not None and answer.done:
            error.add_note(WAS_DONE)
        raise
    if answer is None:
        raise _lost(pid, ear)
    return answer


def _wait(ear: Ear, pid: int, mask: Iterable[int], let_in: Callable[[], object]) -> Answer | None:
    """The worker's answer. Signals arrive again until it is there; the worker is told of the first.

    `let_in` raises here what came while the worker was started.
    """
    try:
        ear.follow(pid)
        let_in()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        answer = ear.listen()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    except BaseException as error:
        ear.stop()
        answer = _hear_the_undo(ear, pid)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        if answer is None or not answer.done:
            for line in _last_words(answer.value if answer else _lost(pid, ear)):
                error.add_note(line)
            raise
    return answer


def _hear_the_undo(ear: Ear, pid: int) -> Answer | None:
    """The answer of a worker that was told to stop; what is raised meanwhile says that it goes on."""
    try:
        if ear.changes:
            log.warning("stopped: undoing what was begun; once more leaves that to the worker")
        return ear.listen()
    except BaseException as again:
        if ear.changes:
            again.add_note(
                f"{LEFT_BEHIND} {pid}, which goes on; `hostdev status` tells what it has not given"
                " back yet"
            )
        raise


def _last_words(end: BaseException) -> Iterator[str]:
    """What is worth telling of how the undo ended."""
    if not isinstance(end, KeyboardInterrupt):
        yield str(end)
    yield from getattr(end, "__notes__", ())


def _lost(pid: int, ear: Ear) -> StateError:
    if ear.patience.gave_up:
        error = StateError(
            f"the worker (pid {pid}) {ear.patience.gave_up}; it was left alone, and has what it works on"
        )
        error.add_note(
            f"what it has could not be given back so far; `kill -CONT {pid}` lets a stopped one go on,"
            " `hostdev status` tells what becomes of it, and `hostdev recover` gives back what a dead one had"
        )
        return error
    if not ear.has_begun:
        return StateError(
            f"the worker (pid {pid}) ended without an answer, before it began; nothing was changed."
            " Where Python is a part of another program, multiprocessing.set_executable() names an"
            " interpreter for it"
        )
    error = StateError(f"the worker (pid {pid}) ended without an answer")
    error.add_note("what it had taken could not be given back; `hostdev recover` does that")
    return error


def _reap(pid: int, answer: Answer | None, ear: Ear) -> None:
    """Collect the worker when it ends; one that goes on is collected later, or by init.

    Most that have answered end in a moment: the last threads of theirs are about to. The pipe of one
    that is dead is closed before its locks: who is told of its death finds them free.
    """
    ends = ear.is_dead or (answer is not None and not answer.lingers)
    seconds = ENDING if ends else DYING if answer is not None else 0.0
    ear.wait_for_its_end(seconds)
    _late.add(pid)
    until = time.monotonic() + seconds
    while _collect(pid) and time.monotonic() < until:
        time.sleep(DYING / 50)


def _collect(pid: int | None = None) -> bool:
    """Collect whoever of the late ones has ended; whether this one goes on."""
    for late in [*_late]:
        try:
            if os.waitpid(late, os.WNOHANG)[0]:
                _late.discard(late)
        except ChildProcessError:  # somebody else has, or this is a fork of who had it
            _late.discard(late)
    return pid in _late


@contextmanager
def _held(signals: Iterable[signal.Signals]) -> Generator[Iterable[int]]:
    """Let these signals wait; the mask that was there before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _flush() -> None:
    """What is buffered here is not to be written a second time by a fork."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            stream.flush()  # type: ignore[union-attr]  # None is an AttributeError
