"""What is heard of a worker: its log, and at last its answer, over a pipe."""

import logging
import os
import pickle
import select
import signal
import struct
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from hostdev_core.forks import starting
from hostdev_core.interrupts import held_back

if TYPE_CHECKING:
    from typing import Self

SIZE = struct.Struct("=Q")
log = logging.getLogger("hostdev")


class Answer(NamedTuple):
    """What a worker says at its end: what it has, or raised; `lingers`: threads of it go on."""

    done: bool
    value: Any
    lingers: bool


class Ear:
    """Hears the worker out, whatever signals raise meanwhile: no word of it is lost, and no signal.

    A signal that comes just before a read that waits would be seen to only when that returns. So each
    sends a byte (signal.set_wakeup_fd) to a pipe that is waited for, too; who had asked for the bytes
    before gets them in the end. Handlers run in the main thread alone: others need none of this.

    All that it needs is opened before the worker is forked: none begins that would not be heard.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._heard = b""
        self.is_dead = False  # the worker, as far as was heard
        self._answer: Answer | None = None
        self._fds: set[int] = set()
        self._reader = self._writer = -1
        self._said: deque[dict[str, Any]] = deque()
        self._death = -1
        self._bell: int | None = None
        self._rings = False
        self._former = -1
        self._rung = b""

    def __enter__(self) -> "Self":
        try:
            with held_back(), starting():
                self._reader, self._writer = self._pipe(0)
                if threading.current_thread() is threading.main_thread():
                    self._bell, ring = self._pipe(os.O_NONBLOCK)
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

    def follow(self, pid: int) -> None:
        """This is the worker. Its death is heard also where another one has a copy of its pipe."""
        with held_back():
            self._close(self._writer)
            with suppress(OSError):  # an old kernel, no more descriptors: the pipe's end will do
                self._death = os.pidfd_open(pid)
                self._fds.add(self._death)
                self._poll.register(self._death, select.POLLIN)

    def _pipe(self, flags: int) -> tuple[int, int]:
        ends = os.pipe2(flags | os.O_CLOEXEC)
        self._fds |= {*ends}
        self._poll.register(ends[0], select.POLLIN)
        return ends

    def _close(self, *fds: int) -> None:
        for fd in fds:
            self._fds.discard(fd)
            os.close(fd)

    def listen(self) -> Answer | None:
        """The worker's answer, with what it logs meanwhile passed on; None when it is dead."""
        while self._answer is None and not self.is_dead:
            ready = {fd for fd, _ in self._poll.poll()}
            with held_back():
                if self._bell is not None and self._bell in ready:
                    self._take_rings(self._bell)
                if self._reader in ready:
                    self._take_words()
                elif self._death in ready:
                    self.is_dead = True
            while self._said:
                log.handle(logging.makeLogRecord(self._said.popleft()))
        return self._answer

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
            if isinstance(said, Answer):
                self._answer = said
            else:
                self._said.append(said)

    def _take_rings(self, bell: int) -> None:
        with suppress(BlockingIOError):
            self._rung += os.read(bell, 4096)
