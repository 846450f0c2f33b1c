"""The calls of one connection: it ends with the last of them, and in its own process only."""

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

from hostdev_core.errors import ConnectionClosedError, ReadOnlyError
from hostdev_core.runtime.all_or_nothing import separate_call
from hostdev_core.runtime.greenlets import check_threads
from hostdev_core.runtime.signals import signals_deferred
from hostdev_core.worker.run import run_in_worker

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.watching.watch import Watch

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate["Connection", P], T]


class _One:
    """A call under way, for as long as its frame is there: no interrupt leaves one behind."""

    def __init__(self, thread: int) -> None:
        self.thread = thread


class Calls:
    """The calls of a connection under way, by thread; `end` is called once, when it is closed and none is.

    A call that a hook makes in a call is a part of that. A process forked from this one has the
    connection, too, and none of the other threads: it may use it, and ends nothing of its parent's.
    """

    def __init__(self, uri: str, end: Callable[[], None]) -> None:
        self.is_closed = False
        self._uri = uri
        self._end = end
        self._has_ended = False
        self._running: WeakSet[_One] = WeakSet()
        self._watches: WeakSet[Watch] = WeakSet()
        self._lock = threading.Lock()
        self._pid = self._owner = os.getpid()

    @contextmanager
    def one(self) -> Generator[None]:
        """Count the block as one call; ConnectionClosedError when the connection was closed before."""
        this = _One(threading.get_ident())
        try:
            with self._locked():
                if self.is_closed and not self._is_inside(this.thread):
                    raise self.closed()
                self._running.add(this)
            yield
        finally:
            self._end_if_it_is_time(this)

    def _is_inside(self, thread: int) -> bool:
        return any(one.thread == thread for one in self._running)

    def close(self) -> None:
        """Refuse calls from now on, and end the watches; a second close does nothing."""
        with self._locked():
            self.is_closed = True
        for watch in [*self._watches]:
            watch.close()
        self._end_if_it_is_time()

    def watched(self, watch: "Watch") -> "Watch":
        """Let a watch end with the connection, also one that was closed while the watch began."""
        with self._locked():
            self._watches.add(watch)
        if self.is_closed:
            watch.close()
        return watch

    def closed(self) -> ConnectionClosedError:
        """Build the error for a call after the close."""
        return ConnectionClosedError(f"the connection to {self._uri} is closed; open another one")

    def _end_if_it_is_time(self, ended: _One | None = None) -> None:
        ends = False
        try:
            with self._locked():
                if ended is not None:
                    self._running.discard(ended)
                if self.is_closed and not (self._has_ended or self._running):
                    self._has_ended = ends = True
        finally:
            if ends and self._pid == self._owner:
                self._end()

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold this object's lock; after a fork a new one, since no thread would release the former."""
        with signals_deferred():  # a signal that raises leaves no lock behind
            if self._pid != os.getpid():
                me = threading.get_ident()
                self._running = WeakSet([one for one in self._running if one.thread == me])
                self._lock, self._pid = threading.Lock(), os.getpid()
            with self._lock:
                yield


def check_may_change(conn: "Connection") -> None:
    """Raise ReadOnlyError on a read-only connection, and the error of a process unfit for changes."""
    if conn.read_only:
        raise ReadOnlyError(f"the connection to {conn.uri} is read-only; open it without read_only")
    check_threads()


def call(method: Method[P, T]) -> Method[P, T]:
    """Make a method a call, which ends in order although the connection is closed meanwhile."""

    @wraps(method)
    def one(conn: "Connection", /, *args: P.args, **keywords: P.kwargs) -> T:
        with conn._calls.one():  # pyright: ignore[reportPrivateUsage]  # its own
            return method(conn, *args, **keywords)

    return one


def change(method: Method[P, T]) -> Method[P, T]:
    """Make a method a call that changes the host; a connection with a worker makes it there."""

    @wraps(method)
    def one(conn: "Connection", /, *args: P.args, **keywords: P.kwargs) -> T:
        with conn.changing(), separate_call():
            conn.registry.check_loaded()
            if conn.worker:
                return run_in_worker(conn, method, *args, **keywords)
            return method(conn, *args, **keywords)

    return one
