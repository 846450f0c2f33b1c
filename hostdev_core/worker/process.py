"""The worker's process: it makes one call, sends log records and at last the answer, and exits.

The pipe is all that connects it with its caller: descriptors that it inherited, the standard streams too,
would stay open for as long as the kernel keeps the worker, or somebody stops it. What it prints is sent,
and printed by the caller.
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
from hostdev_core.runtime.lanes import LaneThread, is_running, wait_for_lanes
from hostdev_core.runtime.signals import STOPS, signals_deferred
from hostdev_core.worker.pipe import SIZE, Answer, Printed, Started

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger("hostdev")


class WorkerWriter(logging.Handler):
    """The worker's end of the pipe: writes log records, and at last the answer; the caller may be gone."""

    def __init__(self, writer: int) -> None:
        super().__init__()
        self._writer = writer
        # The handlers and streams of a fork's parent, kept here: one that is collected would be closed,
        # and would write its buffer a second time.
        self._inherited: list[object] = []

    def redirect_output(self) -> None:
        """Send the records of all loggers, and all text printed; the caller logs and prints it."""
        for logger in [*logging.root.manager.loggerDict.values()]:
            if isinstance(logger, logging.Logger):
                self._inherited.append(logger.handlers)
                logger.handlers, logger.propagate = [], True
        self._inherited += [logging.root.handlers, sys.stdout, sys.stderr]
        logging.root.handlers = [self]
        for name in ("stdout", "stderr"):
            raw = io.BufferedWriter(_PipeStream(self, name))
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "replace", line_buffering=True))

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, its arguments already in its text; one that pickle does not take is dropped."""
        message = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
        with suppress(Exception):
            data = pickle.dumps(message)
            pickle.loads(data)  # the caller must be able to
            self._write(data)

    def send(self, message: object) -> None:
        """Send a message; OSError when the caller is gone."""
        with self.lock or threading.Lock():
            self._write(pickle.dumps(message))

    def send_answer(self, answer: Answer) -> None:
        """Send the answer, or why it cannot be pickled; nothing happens when the caller is gone."""
        with self.lock or threading.Lock(), suppress(OSError):
            self._write(_pickled(answer))

    def disconnect(self) -> None:
        """Put /dev/null in the place of the pipe: the caller reads its end.

        Output of threads that go on is dropped; a closed descriptor's number might be another file's by
        then.
        """
        replace_with_null({self._writer})

    def _write(self, data: bytes) -> None:
        data = SIZE.pack(len(data)) + data
        with signals_deferred():  # half a message, and the caller would take the next for the rest
            while data:
                data = data[os.write(self._writer, data) :]


class _PipeStream(io.RawIOBase):
    """sys.stdout or sys.stderr of the worker: sends the text that is written to it."""

    def __init__(self, pipe: WorkerWriter, name: str) -> None:
        super().__init__()
        self._pipe = pipe
        self._name = name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The descriptor for processes that a plugin starts; their output is not sent."""
        return 1 if self._name == "stdout" else 2

    def write(self, data: Any, /) -> int:
        text = bytes(data).decode("utf-8", "replace")
        with suppress(OSError):  # the caller is gone
            self._pipe.send(Printed(self._name, text))
        return len(data)


def _pickled(answer: Answer) -> bytes:
    """Pickle the answer; in the place of one that cannot be pickled, an error that says so."""
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


def run_and_exit(call: Callable[[], object], pipe: WorkerWriter) -> NoReturn:
    """Make the call, send its answer, and exit when the last thread is back from the kernel."""
    try:
        pipe.redirect_output()
        answer = _run(call, pipe)
        _flush_streams()
        pipe.send_answer(answer)
        pipe.disconnect()
        detach_streams()
        _wait_for_threads()
    finally:
        os._exit(0)  # a fork must not run the exit handlers of its parent


def _run(call: Callable[[], object], pipe: WorkerWriter) -> Answer:
    """Make the call; the first SIGTERM raises KeyboardInterrupt in it, so that it is undone."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    try:
        try:
            # Blocked by the caller up to here, so that none of its handlers runs in a fork.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            with suppress(OSError):  # a killed caller stops nothing
                pipe.send(Started(os.getpid()))
            done, value = True, call()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except BaseException as error:
        done, value = False, error
        log.debug("%s", traceback.format_exc())
    return Answer(done, value, any(map(_delays_exit, _other_threads())))


def _stop(number: int, frame: "FrameType | None") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the undo is not interrupted
    detach_streams()
    raise KeyboardInterrupt(f"stopped by signal {number}")


def detach_streams() -> None:
    """Detach from the caller's terminal and pipes: their readers then wait for the caller alone."""
    _flush_streams()
    replace_with_null({0, 1, 2})


def _flush_streams() -> None:
    """Send the text that is buffered; these streams are the worker's own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            stream.flush()


def detach_all_but(kept: set[int]) -> None:
    """Put /dev/null in the place of all descriptors of the caller but these.

    Closing them would free their numbers: code of the caller's that still writes to one would write
    to a file that was opened later.
    """
    replace_with_null({int(name) for name in os.listdir("/proc/self/fd")} - kept)


def replace_with_null(fds: set[int]) -> None:
    """Put /dev/null in the place of these descriptors: the open ones, and always standard streams."""
    null = _open_null()
    for fd in fds - {null}:
        with suppress(OSError):  # the descriptor of the listing in /proc is closed by now
            if fd > 2:
                os.fstat(fd)
            os.dup2(null, fd, inheritable=fd <= 2)
    os.close(null)


def _open_null() -> int:
    """Open /dev/null; where a container's or a chroot's /dev has none, an empty file in memory."""
    with suppress(OSError):
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return os.memfd_create("null", os.MFD_CLOEXEC)


def _wait_for_threads() -> None:
    # Lanes first: their undo may need other threads, pools among them, which end in _shutdown().
    wait_for_lanes()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for all threads but daemons


def _delays_exit(thread: threading.Thread) -> bool:
    """Whether the process goes on until this thread ends."""
    return is_running(thread) if isinstance(thread, LaneThread) else not thread.daemon


def _other_threads() -> "list[threading.Thread]":
    return [t for t in threading.enumerate() if t is not threading.current_thread()]
