"""A change in a process of its own: it goes on when the caller is left or killed.

The kernel keeps a thread that waits in it, and with the thread its process. A caller that must come
back in time therefore lets another process write, and returns when that says so. What the worker
logs goes to the caller's logger `hostdev`, over the same pipe as its answer.
"""

import logging
import os
import pickle
import select
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from hostdev_core.errors import HostdevError, StateError
from hostdev_core.interrupts import held_back

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import FrameType
    from typing import Self

T = TypeVar("T")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAS_DONE = "what was asked for had been done before; `hostdev status` has what is lent"
_SIZE = struct.Struct("=Q")
log = logging.getLogger("hostdev")


class _Answer(NamedTuple):
    """What a worker says at its end; `lingers`: the kernel keeps threads of it."""

    done: bool
    value: Any
    lingers: bool


def run_in_worker(call: Callable[[], T]) -> T:
    """Run `call` in a forked process of its own session; its result, or what it raised.

    An exception in the waiting thread (KeyboardInterrupt, or what a signal handler raises) tells the
    worker to stop; it undoes, and the exception is raised when it has, with the worker's last words
    as notes. A change that was complete before is returned instead; an exception that comes later
    still says so in a note, WAS_DONE. A second exception returns at once and leaves the worker undoing.
    """
    reader, writer = os.pipe()
    answer: _Answer | None = None
    try:
        with _held(STOPS) as mask:  # the child must not run the caller's handlers
            _flush()
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                _work(call, writer)
            os.close(writer)
            try:
                with _Ear(reader) as ear:
                    answer = _wait(ear, pid, mask)
            finally:
                os.close(reader)
                _reap(pid, wait=answer is not None and not answer.lingers)
    except BaseException as error:
        if answer is not None and answer.done:
            error.add_note(WAS_DONE)
        raise
    return _result(answer, pid)  # type: ignore[no-any-return]


def _result(answer: _Answer | None, pid: int) -> Any:
    if answer is None:
        raise _lost(pid)
    if not answer.done:
        raise answer.value
    return answer.value


class _Ear:
    """Hears the worker out, whatever signals raise meanwhile: no word of it is lost, and no signal.

    A signal that comes just before a read that waits would be seen to only when that returns. So each
    sends a byte (signal.set_wakeup_fd) to a pipe that is waited for, too; who had asked for the bytes
    before gets them in the end. Handlers run in the main thread alone: others need none of this.
    """

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._poll = select.poll()
        self._poll.register(reader, select.POLLIN)
        self._heard = b""
        self._ended = False
        self._answer: _Answer | None = None
        self._bell: tuple[int, int] | None = None
        self._former = -1
        self._rung = b""

    def __enter__(self) -> "Self":
        if threading.current_thread() is threading.main_thread():
            self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._poll.register(self._bell[0], select.POLLIN)
            self._former = signal.set_wakeup_fd(self._bell[1], warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bell is None:
            return
        with held_back():
            signal.set_wakeup_fd(self._former)
            self._take_rings(self._bell[0])
            for fd in self._bell:
                os.close(fd)
            if self._former != -1 and self._rung:
                with suppress(OSError):
                    os.write(self._former, self._rung)

    def listen(self) -> _Answer | None:
        """The worker's answer, with what it logs meanwhile passed on; None when it is dead."""
        while self._answer is None and not self._ended:
            ready = {fd for fd, _ in self._poll.poll()}
            with held_back():
                if self._bell is not None and self._bell[0] in ready:
                    self._take_rings(self._bell[0])
                said = [*self._take_words()] if self._reader in ready else []
            for words in said:
                log.handle(logging.makeLogRecord(words))
        return self._answer

    def _take_words(self) -> "Iterator[dict[str, Any]]":
        """Read what is there; the records of what the worker logs."""
        part = os.read(self._reader, 65536)
        self._ended = not part
        self._heard += part
        while len(self._heard) >= _SIZE.size:
            end = _SIZE.size + _SIZE.unpack_from(self._heard)[0]
            if len(self._heard) < end:
                return
            said = pickle.loads(self._heard[_SIZE.size : end])
            self._heard = self._heard[end:]
            if isinstance(said, _Answer):
                self._answer = said
            else:
                yield said

    def _take_rings(self, bell: int) -> None:
        with suppress(BlockingIOError):
            self._rung += os.read(bell, 4096)


def _wait(ear: _Ear, pid: int, mask: "Iterable[int]") -> _Answer | None:
    """The worker's answer. Signals arrive again until it is there; the worker is told of the first."""
    try:
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


def _reap(pid: int, *, wait: bool) -> None:
    """Collect the worker when it ends; one that waits for the kernel is left to init."""
    with suppress(ChildProcessError):
        os.waitpid(pid, 0 if wait else os.WNOHANG)


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
            self._send(pickle.dumps(said))

    def answer(self, answer: _Answer) -> None:
        with self.lock or threading.Lock(), suppress(OSError):
            self._send(_pickled(answer))

    def _send(self, data: bytes) -> None:
        data = _SIZE.pack(len(data)) + data
        while data:
            data = data[os.write(self._writer, data) :]


def _pickled(answer: _Answer) -> bytes:
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)
    except Exception:
        if answer.done:
            return pickle.dumps(answer._replace(value=None))
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


def _run(call: Callable[[], object]) -> _Answer:
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
    return _Answer(done, value, threading.active_count() > 1)


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
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
