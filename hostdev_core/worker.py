"""A change in a process of its own: it goes on when the caller is left or killed.

The kernel keeps a thread that waits in it, and with the thread its process. A caller that must come
back in time therefore lets another process write, and returns when that says so. What the worker
logs goes to the caller's logger `hostdev`, over the same pipe as its answer.
"""

import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hostdev_core.ear import SIZE, Answer, Ear
from hostdev_core.errors import WAS_DONE, HostdevError, StateError
from hostdev_core.executor import LaneThread
from hostdev_core.forks import starting

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import FrameType

T = TypeVar("T")
DYING = 0.2  # seconds
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
log = logging.getLogger("hostdev")


def run_in_worker(call: Callable[[], T]) -> T:
    """Run `call` in a forked process of its own session; its result, or what it raised.

    An exception in the waiting thread (KeyboardInterrupt, or what a signal handler raises) tells the
    worker to stop; it undoes, and the exception is raised when it has, with the worker's last words
    as notes. A change that was complete before is returned instead; an exception that comes later
    still says so in a note, WAS_DONE. A second exception returns at once and leaves the worker undoing.
    """
    answer: Answer | None = None
    try:
        with _held(STOPS) as mask, Ear() as ear:  # the child must not run the caller's handlers
            _flush()
            with starting():
                pid = os.fork()
            if pid == 0:
                _work(call, ear.leave())
            try:
                answer = _wait(ear, pid, mask)
            finally:
                _reap(pid, answer, is_dead=ear.is_dead)
    except BaseException as error:
        if answer is not None and answer.done:
            error.add_note(WAS_DONE)
        raise
    return _result(answer, pid)  # type: ignore[no-any-return]


def _result(answer: Answer | None, pid: int) -> Any:
    if answer is None:
        raise _lost(pid)
    if isinstance(answer.value, BaseException):
        raise answer.value
    return answer.value


def _wait(ear: Ear, pid: int, mask: "Iterable[int]") -> Answer | None:
    """The worker's answer. Signals arrive again until it is there; the worker is told of the first."""
    try:
        ear.follow(pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        answer = ear.listen()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        answer = ear.listen()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        if answer is None or not answer.done:
            for line in _last_words(answer.value if answer else _lost(pid)):
                error.add_note(line)
            raise
    return answer


def _last_words(end: BaseException) -> "Iterator[str]":
    """What is worth telling of how the undo ended."""
    if not isinstance(end, KeyboardInterrupt):
        yield str(end)
    yield from getattr(end, "__notes__", ())


def _lost(pid: int) -> StateError:
    error = StateError(f"the worker (pid {pid}) ended without an answer")
    error.add_note("what it had taken could not be given back; `hostdev recover` does that")
    return error


def _reap(pid: int, answer: Answer | None, *, is_dead: bool) -> None:
    """Collect the worker when it ends; one that goes on is left to init.

    Most that have answered end in a moment: the last threads of theirs are about to. The pipe of one
    that is dead is closed before its locks: who is told of its death finds them free.
    """
    ends = is_dead or (answer is not None and not answer.lingers)
    until = time.monotonic() + (DYING if answer is not None else 0.0)
    with suppress(ChildProcessError):
        while os.waitpid(pid, 0 if ends else os.WNOHANG)[0] == 0 and time.monotonic() < until:
            time.sleep(DYING / 50)


@contextmanager
def _held(signals: "Iterable[signal.Signals]") -> "Generator[Iterable[int], None, None]":
    """Let these signals wait; the mask that was there before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# The worker's side.


class _Mouth(logging.Handler):
    """Sends log records, and at last the answer, to who waits; nobody need be there any more."""

    def __init__(self, writer: int) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        said = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
        with suppress(Exception):
            data = pickle.dumps(said)
            pickle.loads(data)
            self._send(data)

    def answer(self, answer: Answer) -> None:
        with self.lock or threading.Lock(), suppress(OSError):
            self._send(_pickled(answer))

    def _send(self, data: bytes) -> None:
        data = SIZE.pack(len(data)) + data
        while data:
            data = data[os.write(self._writer, data) :]


def _pickled(answer: Answer) -> bytes:
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)
    except Exception as reason:
        if answer.done:
            error = StateError(f"what the call answers cannot be told: {reason}")
            error.add_note(WAS_DONE)
            return pickle.dumps(answer._replace(value=error))
        text = "".join(traceback.format_exception_only(answer.value)).strip()
        return pickle.dumps(answer._replace(value=HostdevError(text)))
    return data


def _work(call: Callable[[], object], writer: int) -> NoReturn:
    """The worker's whole life; it ends when its last thread is back from the kernel."""
    try:
        os.setsid()
        mouth = _Mouth(writer)
        log.handlers, log.propagate = [mouth], False
        mouth.answer(_run(call))
        os.close(writer)
        _let_go()
        _wait_for_threads()
    finally:
        os._exit(0)


def _run(call: Callable[[], object]) -> Answer:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            done, value = True, call()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except BaseException as error:
        done, value = False, error
        log.debug("%s", traceback.format_exc())
    return Answer(done, value, any(not thread.daemon for thread in _others()))


def _stop(number: int, frame: "FrameType | None") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the undo is not interrupted
    _let_go()
    raise KeyboardInterrupt(f"stopped by signal {number}")


def _let_go() -> None:
    """Let go of the caller's terminal and pipes: whoever reads them waits no longer than the caller."""
    _flush()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            stream.flush()


def _wait_for_threads() -> None:
    """Wait for the lanes, whose undo may need other threads; then end as a process ends by itself."""
    for thread in _others():
        if isinstance(thread, LaneThread):
            thread.join()
    threading._shutdown()  # type: ignore[attr-defined]  # pools end, others but daemons are waited for


def _others() -> "list[threading.Thread]":
    return [t for t in threading.enumerate() if t is not threading.current_thread()]
