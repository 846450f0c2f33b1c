"""What is heard of a worker: its log, what it asks, and at last its answer, over a pipe."""

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

from hostdev_core.runtime.forks import above_streams, starting
from hostdev_core.runtime.signals import held_back
from hostdev_core.worker.patience import Patience

if TYPE_CHECKING:
    from typing import Self

SIZE = struct.Struct("=Q")


class Answer(NamedTuple):
    """What a worker says at its end: what it has, or raised; `lingers`: threads of it go on."""

    done: bool
    value: Any
    lingers: bool


class Begun(NamedTuple):
    """What a worker says before it does anything."""

    pid: int


class Printed(NamedTuple):
    """What was printed to sys.stdout or sys.stderr there; it is printed here."""

    stream: str
    text: str


class Ask(NamedTuple):
    """A hook of a plugin that is not in the worker, to be called here."""

    number: int
    plugin: str
    hook: str
    arguments: dict[str, Any]


class Reply(NamedTuple):
    """What that answered, or raised."""

    number: int
    value: Any
    error: BaseException | None


Serve = Callable[[Ask], Reply]


class Ear:
    """Hears the worker out, whatever signals raise meanwhile: no word of it is lost, and no signal.

    A signal that comes just before a read that waits would be seen to only when that returns. So each
    sends a byte (signal.set_wakeup_fd) to a pipe that is waited for, too; who had asked for the bytes
    before gets them in the end. Handlers run in the main thread alone: others need none of this.

    All that it needs is opened before the worker is started: none begins that would not be heard.
    With `serve` the worker may ask. `changes`: there is something to undo when it is told to stop.
    """

    def __init__(self, patience: Patience, serve: Serve | None = None) -> None:
        self.patience = patience
        self.changes = True
        self._serve = serve
        self._poll = select.poll()
        self._heard = b""
        self.has_begun = self.is_dead = False  # the worker, as far as was heard
        self._answer: Answer | None = None
        self._asked: deque[Ask] = deque()
        self._pid = 0
        self.questions = self._replies = -1
        self._fds: set[int] = set()
        self._reader = self._writer = -1
        self._said: deque[dict[str, Any] | Printed] = deque()
        self._death = -1
        self._bell: int | None = None
        self._rings = False
        self._former = -1
        self._rung = b""

    def __enter__(self) -> "Self":
        try:
            with held_back(), starting():
                self._reader, self._writer = self._pipe(0)
                self._poll.register(self._reader, select.POLLIN)
                if self._serve is not None:
                    self.questions, self._replies = self._pipe(0)
                    os.set_blocking(self._replies, False)
                if threading.current_thread() is threading.main_thread():
                    self._bell, ring = self._pipe(os.O_NONBLOCK)
                    self._poll.register(self._bell, select.POLLIN)
                    self._former = signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
                    self._rings = True
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with held_back():
            if self._rings and self._bell is not None:
                signal.set_wakeup_fd(self._former)
                self._take_rings(self._bell)
            self._close(*self._fds)
            if self._former != -1 and self._rung:
                with suppress(OSError):
                    os.write(self._former, self._rung)

    def leave(self) -> int:
        """In the worker: let go of all but the end that is written to, which is given."""
        signal.set_wakeup_fd(-1)  # its signals are nobody else's
        self._close(*self._fds - {self._writer})
        return self._writer

    @property
    def given(self) -> tuple[int, ...]:
        """In the worker these are: what it writes to, and what it hears replies from, if it may ask."""
        return (self._writer,) if self._serve is None else (self._writer, self.questions)

    def follow(self, pid: int) -> None:
        """This is the worker. Its death is heard also where another one has a copy of its pipe."""
        with held_back():
            self._pid = pid
            self._close(*self.given)
            with suppress(OSError):  # an old kernel, no more descriptors: the pipe's end will do
                self._death = os.pidfd_open(pid)
                self._fds.add(self._death)
                self._poll.register(self._death, select.POLLIN)

    def _pipe(self, flags: int) -> tuple[int, int]:
        reader, writer = map(above_streams, os.pipe2(flags | os.O_CLOEXEC))
        self._fds |= {reader, writer}
        return reader, writer

    def _close(self, *fds: int) -> None:
        for fd in fds:
            self._fds.discard(fd)
            os.close(fd)

    def stop(self) -> None:
        """Tell the worker to stop."""
        with suppress(ProcessLookupError):
            if self._death == -1:
                os.kill(self._pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(self._death, signal.SIGTERM)

    def listen(self) -> Answer | None:
        """The worker's answer; what it logs or prints is passed on. None when it is dead or was left."""
        self.patience.heard()
        while self._answer is None and not self.is_dead:
            ready = {fd for fd, _ in self._poll.poll(1000 * self.patience.pulse)}
            with held_back():
                if self._bell is not None and self._bell in ready:
                    self._take_rings(self._bell)
                if self._reader in ready:
                    self._take_words()
                elif self._death in ready:
                    self.is_dead = True
            while self._said:
                _pass_on(self._said.popleft())
            while self._asked and self._serve is not None:
                self._reply(pickle.dumps(self._serve(self._asked.popleft())))
            if not ready and self.patience.has_ended(self._pid):
                break
        return self._answer

    def wait_for_its_end(self, seconds: float) -> None:
        """Wait until the process has ended, at most so long."""
        ends = select.poll()
        if self._death != -1:
            ends.register(self._death, select.POLLIN)
            ends.poll(1000 * seconds)

    def _reply(self, data: bytes) -> None:
        """Whoever is stopped reads nothing, and has not asked for long."""
        data = SIZE.pack(len(data)) + data
        until = time.monotonic() + self.patience.longest
        while data and time.monotonic() < until:
            try:
                data = data[os.write(self._replies, data) :]
            except BlockingIOError:
                time.sleep(self.patience.pulse / 10)
            except OSError:
                return  # it is dead

    def _take_words(self) -> None:
        """Read what is there: what the worker logs, or its answer."""
        part = os.read(self._reader, 65536)
        self.is_dead = not part
        self._heard += part
        while len(self._heard) >= SIZE.size:
            end = SIZE.size + SIZE.unpack_from(self._heard)[0]
            if len(self._heard) < end:
                return
            said = pickle.loads(self._heard[SIZE.size : end])
            self._heard = self._heard[end:]
            self.patience.heard()
            if isinstance(said, Answer):
                self._answer = said
            elif isinstance(said, Ask):
                self._asked.append(said)
            elif isinstance(said, Begun):
                self.has_begun = True
            else:
                self._said.append(said)

    def _take_rings(self, bell: int) -> None:
        with suppress(BlockingIOError):
            self._rung += os.read(bell, 4096)


def _pass_on(said: dict[str, Any] | Printed) -> None:
    """Log or print here what was there; who reads that may be gone."""
    if not isinstance(said, Printed):
        record = logging.makeLogRecord(said)
        logging.getLogger(record.name).handle(record)
        return
    stream = getattr(sys, said.stream)
    with suppress(OSError, ValueError, AttributeError):
        stream.write(said.text)
        stream.flush()
