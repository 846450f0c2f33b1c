"""A worker's life: it makes one call, tells what it logs and at last the answer, and ends.

It has no word with its caller but over its pipe: what else that had open, its standard streams too,
would stay open for as long as the kernel keeps the worker, or somebody stops it. What is printed in it is
sent, and printed by the caller.
"""

import io
import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from hostdev_core.errors import WAS_DONE, HostdevError, StateError
from hostdev_core.runtime.lanes import LaneThread, goes_on, wait_for_lanes
from hostdev_core.runtime.signals import held_back
from hostdev_core.worker.pipe import SIZE, Answer, Begun, Printed

if TYPE_CHECKING:
    from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
log = logging.getLogger("hostdev")


class Mouth(logging.Handler):
    """Sends log records, and at last the answer, to who waits; nobody need be there any more."""

    def __init__(self, writer: int) -> None:
        super().__init__()
        self._writer = writer
        self._kept: list[object] = []  # of a fork's parent: what goes is closed, and flushed

    def hear_all(self) -> None:
        """Send what any logger of this process says, or what is printed; the caller does the same here."""
        for logger in [*logging.root.manager.loggerDict.values()]:
            if isinstance(logger, logging.Logger):
                self._kept.append(logger.handlers)
                logger.handlers, logger.propagate = [], True
        self._kept += [logging.root.handlers, sys.stdout, sys.stderr]
        logging.root.handlers = [self]
        for name in ("stdout", "stderr"):
            raw = io.BufferedWriter(_Stream(self, name))
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "replace", line_buffering=True))

    def emit(self, record: logging.LogRecord) -> None:
        """Send what a record says."""
        said = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
        with suppress(Exception):
            data = pickle.dumps(said)
            pickle.loads(data)
            self._send(data)

    def say(self, word: object) -> None:
        """Send a word that pickle takes; OSError when nobody is there."""
        with self.lock or threading.Lock():
            self._send(pickle.dumps(word))

    def answer(self, answer: Answer) -> None:
        """Send the answer, or why it cannot be sent."""
        with self.lock or threading.Lock(), suppress(OSError):
            self._send(_pickled(answer))

    def close_for_good(self) -> None:
        """Nothing more is sent: who reads hears of the end. What late threads say goes nowhere else."""
        put_null({self._writer})

    def _send(self, data: bytes) -> None:
        """All of it, also when a signal tells the worker to stop meanwhile."""
        data = SIZE.pack(len(data)) + data
        with held_back():
            while data:
                data = data[os.write(self._writer, data) :]


class _Stream(io.RawIOBase):
    """Sends what is printed."""

    def __init__(self, mouth: Mouth, name: str) -> None:
        super().__init__()
        self._mouth = mouth
        self._name = name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """For processes that a plugin starts; nobody reads what these print."""
        return 1 if self._name == "stdout" else 2

    def write(self, data: Any, /) -> int:
        text = bytes(data).decode("utf-8", "replace")
        with suppress(OSError):  # nobody is there any more
            self._mouth.say(Printed(self._name, text))
        return len(data)


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


def work(call: Callable[[], object], mouth: Mouth) -> NoReturn:
    """The worker's whole life; it ends when its last thread is back from the kernel."""
    try:
        mouth.hear_all()
        answer = _run(call, mouth)
        _flush()
        mouth.answer(answer)
        mouth.close_for_good()
        let_go_of_streams()
        _wait_for_threads()
    finally:
        os._exit(0)


def _run(call: Callable[[], object], mouth: Mouth) -> Answer:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            with suppress(OSError):  # a killed caller stops nothing
                mouth.say(Begun(os.getpid()))
            done, value = True, call()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except BaseException as error:
        done, value = False, error
        log.debug("%s", traceback.format_exc())
    return Answer(done, value, any(map(_lingers, _others())))


def _stop(number: int, frame: "FrameType | None") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the undo is not interrupted
    let_go_of_streams()
    raise KeyboardInterrupt(f"stopped by signal {number}")


def let_go_of_streams() -> None:
    """Let go of the caller's terminal and pipes: whoever reads them waits no longer than the caller."""
    _flush()
    put_null({0, 1, 2})


def _flush() -> None:
    """Send what is buffered of what was printed; these streams are the worker's own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            stream.flush()


def let_go_of_all_but(kept: set[int]) -> None:
    """Let go of what the caller had open; no number is free then that somebody still writes to."""
    put_null({int(name) for name in os.listdir("/proc/self/fd")} - kept)


def put_null(fds: set[int]) -> None:
    """Put nothing in the place of these, where they are open; the standard streams' are always."""
    null = _open_null()
    for fd in fds - {null}:
        with suppress(OSError):  # the listing's own is closed
            if fd > 2:
                os.fstat(fd)
            os.dup2(null, fd, inheritable=fd <= 2)
    os.close(null)


def _open_null() -> int:
    """/dev/null; where a container's or a chroot's /dev has none, an empty file that takes what is said."""
    with suppress(OSError):
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return os.memfd_create("null", os.MFD_CLOEXEC)


def _wait_for_threads() -> None:
    """Wait for the lanes, whose undo may need other threads; then end as a process ends by itself."""
    wait_for_lanes()
    threading._shutdown()  # type: ignore[attr-defined]  # pools end, others but daemons are waited for


def _lingers(thread: threading.Thread) -> bool:
    """Whether the process does not end before it."""
    return goes_on(thread) if isinstance(thread, LaneThread) else not thread.daemon


def _others() -> "list[threading.Thread]":
    return [t for t in threading.enumerate() if t is not threading.current_thread()]
