"""The caller's end of the pipe from its worker, which reads: log records, hooks to call, and the answer.

The worker's end, which writes, is `WorkerWriter` in worker/process.py.

A message is its length (`SIZE`) and a pickle. `Started`, `Printed`, `HookCall`, the dict of a log record
and `Answer` go to the caller; `HookResult` goes to the worker, over a second pipe.
"""

import logging
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from hostdev_core.runtime.forks import above_streams, explaining_shortages
from hostdev_core.runtime.signals import signals_deferred
from hostdev_core.worker.patience import Patience

if TYPE_CHECKING:
    from typing import Self

SIZE = struct.Struct("=Q")


class Answer(NamedTuple):
    """The worker's last message: the call's result or error; `lingers`: threads of it go on.

    `done`: the call returned, so that `value` is its result; else `value` is the exception it raised.
    """

    done: bool
    value: Any
    lingers: bool


class Started(NamedTuple):
    """The worker's first message, sent before it does anything."""

    pid: int


class Printed(NamedTuple):
    """Text that the worker printed to sys.stdout or sys.stderr; the caller prints it."""

    stream: str
    text: str


class HookCall(NamedTuple):
    """A hook of a plugin that the worker does not have, for the caller to call."""

    number: int
    plugin: str
    hook: str
    arguments: dict[str, Any]


class HookResult(NamedTuple):
    """The result of a HookCall, or the exception that the hook raised."""

    number: int
    value: Any
    error: BaseException | None


CallHook = Callable[[HookCall], HookResult]


class CallerReader:
    """The caller's end: reads a worker's messages while signals are handled, and loses none of either.

    A signal that arrives just before a poll that waits would be handled only when that returns. So each
    signal writes a byte (signal.set_wakeup_fd) to a pipe that is polled, too; a program that had set
    such a descriptor before gets the bytes at the end. Python calls handlers in the main thread alone:
    other threads need none of this.

    All descriptors are opened before the worker is started: none starts whose messages could not be
    read. With `call_hook` the worker may have hooks called here. `changes`: the call changes something,
    which a worker that is told to stop has to undo.
    """

    def __init__(self, patience: Patience, call_hook: CallHook | None = None) -> None:
        self.patience = patience
        self.changes = True
        self._call_hook = call_hook
        self._poll = select.poll()
        self._data = b""  # read, and not yet a whole message
        self.has_started = self.is_dead = False  # the worker, as far as its messages were read
        self._answer: Answer | None = None
        self._is_stopped = False
        self._hook_calls: deque[HookCall] = deque()
        self._output: deque[dict[str, Any] | Printed] = deque()
        self._pid = 0
        self._pidfd = -1
        self._fds: set[int] = set()
        self._reader = self._writer = -1
        self._results_reader = self._results_writer = -1
        self._wakeup_reader: int | None = None
        self._has_set_wakeup = False
        self._former_wakeup = -1
        self._wakeup_bytes = b""

    def __enter__(self) -> "Self":
        try:
            with signals_deferred(), explaining_shortages():
                self._reader, self._writer = self._pipe(0)
                self._poll.register(self._reader, select.POLLIN)
                if self._call_hook is not None:
                    self._results_reader, self._results_writer = self._pipe(0)
                    # A worker that is stopped reads nothing: a write must not wait for it.
                    os.set_blocking(self._results_writer, False)
                if threading.current_thread() is threading.main_thread():
                    self._wakeup_reader, wakeup_writer = self._pipe(os.O_NONBLOCK)
                    self._poll.register(self._wakeup_reader, select.POLLIN)
                    self._former_wakeup = signal.set_wakeup_fd(
                        wakeup_writer, warn_on_full_buffer=False
                    )
                    self._has_set_wakeup = True
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with signals_deferred():
            if self._has_set_wakeup and self._wakeup_reader is not None:
                signal.set_wakeup_fd(self._former_wakeup)
                self._read_wakeup_bytes(self._wakeup_reader)
            self._close(*self._fds)
            if self._former_wakeup != -1 and self._wakeup_bytes:
                with suppress(OSError):
                    os.write(self._former_wakeup, self._wakeup_bytes)

    def close_in_worker(self) -> int:
        """In a forked worker: close all but the end that the worker writes to, and return that."""
        signal.set_wakeup_fd(-1)  # the worker's signals must not wake the caller
        self._close(*self._fds - {self._writer})
        return self._writer

    @property
    def worker_fds(self) -> tuple[int, ...]:
        """The worker's descriptors: the one that it writes to, and with `call_hook` that of results."""
        if self._call_hook is None:
            return (self._writer,)
        return (self._writer, self._results_reader)

    def watch(self, pid: int) -> None:
        """Read from the worker with this pid, whose own ends are closed here.

        Its death is seen by a pidfd, too: another process with a copy of the pipe's end would keep that
        open.
        """
        with signals_deferred():
            self._pid = pid
            self._close(*self.worker_fds)
            with suppress(OSError):  # an old kernel, no more descriptors: the pipe's end will do
                self._pidfd = os.pidfd_open(pid)
                self._fds.add(self._pidfd)
                self._poll.register(self._pidfd, select.POLLIN)

    def _pipe(self, flags: int) -> tuple[int, int]:
        reader, writer = map(above_streams, os.pipe2(flags | os.O_CLOEXEC))
        self._fds |= {reader, writer}
        return reader, writer

    def _close(self, *fds: int) -> None:
        for fd in fds:
            self._fds.discard(fd)
            os.close(fd)

    def stop(self) -> None:
        """Tell the worker to stop (SIGTERM); what its further records and prints raise here is dropped.

        A log handler that has raised once, which may be why, raises again and again.
        """
        self._is_stopped = True
        with suppress(ProcessLookupError):
            if self._pidfd == -1:
                os.kill(self._pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def read_answer(self) -> Answer | None:
        """Read messages up to the answer, and return that; log, print and call hooks as they ask.

        None when the worker is dead, or the patience has run out. Signals are handled all the while, and
        their handlers may raise here: a later call goes on with the next message.
        """
        self.patience.restart()
        while self._answer is None and not self.is_dead:
            ready = {fd for fd, _ in self._poll.poll(1000 * self.patience.interval)}
            # A handler that raises between a read and the end of its message would lose bytes of it.
            with signals_deferred():
                if self._wakeup_reader is not None and self._wakeup_reader in ready:
                    self._read_wakeup_bytes(self._wakeup_reader)
                if self._reader in ready:
                    self._read_messages()
                elif self._pidfd in ready:  # dead, and its last messages are read
                    self.is_dead = True
            # Log handlers, streams and hooks may take their time: signals are handled meanwhile.
            while self._output:
                try:
                    _pass_on(self._output.popleft())
                except Exception:
                    if not self._is_stopped:
                        raise
            while self._hook_calls and self._call_hook is not None:
                self._send_result(pickle.dumps(self._call_hook(self._hook_calls.popleft())))
            if not ready and self.patience.has_run_out(self._pid):
                break
        return self._answer

    def wait_for_exit(self, seconds: float) -> None:
        """Wait until the worker's process has ended, for at most `seconds`; not without a pidfd."""
        poll = select.poll()
        if self._pidfd != -1:
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(1000 * seconds)

    def _send_result(self, data: bytes) -> None:
        """Send a hook's result; give up on a worker that reads nothing for the longest deadline."""
        data = SIZE.pack(len(data)) + data
        until = time.monotonic() + self.patience.longest
        while data and time.monotonic() < until:
            try:
                data = data[os.write(self._results_writer, data) :]
            except BlockingIOError:
                time.sleep(self.patience.interval / 10)
            except OSError:
                return  # it is dead

    def _read_messages(self) -> None:
        """Read the bytes that have arrived, and sort the whole messages among them."""
        part = os.read(self._reader, 65536)
        self.is_dead = not part
        self._data += part
        while len(self._data) >= SIZE.size:
            end = SIZE.size + SIZE.unpack_from(self._data)[0]
            if len(self._data) < end:
                return
            message = pickle.loads(self._data[SIZE.size : end])
            self._data = self._data[end:]
            self.patience.restart()
            if isinstance(message, Answer):
                self._answer = message
            elif isinstance(message, HookCall):
                self._hook_calls.append(message)
            elif isinstance(message, Started):
                self.has_started = True
            else:
                self._output.append(message)

    def _read_wakeup_bytes(self, reader: int) -> None:
        with suppress(BlockingIOError):
            self._wakeup_bytes += os.read(reader, 4096)


def _pass_on(message: dict[str, Any] | Printed) -> None:
    """Log or print here a record or text of the worker; a stream that is closed is passed over."""
    if not isinstance(message, Printed):
        record = logging.makeLogRecord(message)
        logging.getLogger(record.name).handle(record)
        return
    stream = getattr(sys, message.stream)
    with suppress(OSError, ValueError, AttributeError):  # its reader may be gone
        stream.write(message.text)
        stream.flush()
