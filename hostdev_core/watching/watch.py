"""A Watch: the events of a host's devices, for one reader or several, until it is closed."""

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hostdev_core.errors import ConnectionClosedError, InputError, StateError
from hostdev_core.watching.differences import Snapshot, differences
from hostdev_core.watching.events import Event
from hostdev_core.watching.survey import Survey
from hostdev_core.watching.wakeups import Wakeups

if TYPE_CHECKING:
    from hostdev_core.host import Host

_LONGEST = 86400.0  # seconds; poll(2) takes no number above some weeks


class Watch:
    """What happens to the devices of a host from the making of this on; closed by `close` or a `with` block.

    An iterator of events, which waits for the next one and ends when this is closed. Several threads may
    read: each event goes to one of them. Any may close it; a process that is forked has no part in it.
    Nothing is read ahead: while nobody reads, the kernel keeps what happens, and where that gets too much
    all is looked at again. What a late reader is told is how things differ from what it was told before, so
    what was undone meanwhile leaves no event, and no event is wrong.
    """

    def __init__(
        self, host: "Host", *, state: bool = False, ends_with: Collection[int] = ()
    ) -> None:
        """Listen first, and look then: nothing is lost between.

        With `state` the first events, which are `initial`, tell where things stand. `ends_with` are
        descriptors at whose hang-up the watch closes itself. Raises StateError where the kernel gives no
        events or no more watches, NotPermittedError where the ledger may not be read.
        """
        self._pid = os.getpid()
        self._is_closed = True  # nothing is open yet
        self._lock = threading.Lock()  # of what is known, held for a look
        self._gate = threading.RLock()  # of the readers' number; a signal handler may close, too
        self._readers = 0
        self._has_ended = False
        self._ends_with = tuple(ends_with)
        self._events: deque[Event] = deque()
        self._wakeups = Wakeups(host)
        # Readable while there are events for other readers than the one that has looked, or it is closed.
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_closed = False
        self._known: Snapshot = {}
        try:
            self._survey = Survey(host, self._wakeups)
            self._survey.update()
            self._survey.search_now()
            self._known = self._survey.snapshot()
        except BaseException:
            self.close()
            raise
        if state:
            self._events += differences({}, self._known, time=time.time(), initial=True)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or its connection."""
        return self._is_closed

    def next(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event; None when there is none within `timeout` seconds.

        ConnectionClosedError when this is closed, now or while it waits. NotPermittedError, StateError or
        KernelError when what has happened cannot be seen; the next call tries again.
        """
        end = _end_of(timeout)
        with self._reading():
            while True:
                with self._lock:
                    self._check_open()
                    event = self._take()
                    due = self._survey.next_look
                if event is not None:
                    return event
                if end is not None and time.monotonic() >= end:
                    return None
                self._wait(end if due is None else due if end is None else min(due, end))

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            event = self.next()
        except ConnectionClosedError:
            raise StopIteration from None
        assert event is not None  # without a time that could be over
        return event

    def close(self) -> None:
        """End the watch, and the waits of all its readers; a second time is harmless.

        Nothing is waited for: the last reader under way closes the descriptors.
        """
        if self._pid != os.getpid():
            return  # a copy in a forked process; the parent's goes on
        with self._gate:
            if not self._is_closed:
                self._is_closed = True
                os.eventfd_write(self._bell, 1)
                self._end_if_unused()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            self.close()

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise StateError(
                "this watch is of the process that it was forked from; begin another one"
            )
        if self._is_closed:
            raise ConnectionClosedError("the watch is closed; begin another one")

    @contextmanager
    def _reading(self) -> Generator[None]:
        """Count the block as a reader: the last one closes the descriptors of a watch that was closed."""
        with self._gate:
            self._check_open()
            self._readers += 1
        try:
            yield
        finally:
            with self._gate:
                self._readers -= 1
                self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._is_closed and not (self._readers or self._has_ended):
            self._has_ended = True
            self._wakeups.close()
            os.close(self._bell)

    def _take(self) -> Event | None:
        """Take the next event, looking for more where none is left; the lock is held."""
        if not self._events:
            self._look()
        event = self._events.popleft() if self._events else None
        if self._events:
            os.eventfd_write(self._bell, 1)
        else:
            self._silence()
        return event

    def _look(self) -> None:
        if self._survey.update():
            after = self._survey.snapshot()
            self._events += differences(self._known, after, time=time.time())
            self._known = after

    def _silence(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            pass  # it was silent
        if self._is_closed:  # meanwhile: it rings for every reader then
            os.eventfd_write(self._bell, 1)

    def _wait(self, until: float | None) -> None:
        """Wait until something may have changed, or until this moment of time.monotonic()."""
        poll = select.poll()
        for fd in (*self._wakeups.descriptors, self._bell):
            poll.register(fd, select.POLLIN)
        for fd in self._ends_with:
            poll.register(fd, 0)  # POLLERR and POLLHUP are always told
        left = None if until is None else max(0.0, until - time.monotonic())
        ready = poll.poll(None if left is None else math.ceil(min(left, _LONGEST) * 1000))
        if any(fd in self._ends_with for fd, _ in ready):
            self.close()


def _end_of(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if not (isinstance(timeout, (int, float)) and timeout >= 0):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"timeout={timeout!r:.80} is no number of seconds from 0 on")
    return time.monotonic() + timeout
