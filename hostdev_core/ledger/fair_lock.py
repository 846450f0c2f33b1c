"""Lock the ledger fairly between processes: the kernel wakes the next waiter without pauses.

SQLite waits by trying again after ever longer pauses: of many processes, one may be passed over until its
timeout. A lock of flock(2) is handed on instead, and falls with its holder, however that dies.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial

from hostdev_core.kernel.processes import command_of
from hostdev_core.runtime.forks import close_private, open_private

_INTERVAL = 0.2  # seconds between two calls of `meanwhile`
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class LockError(Exception):
    """The file cannot be locked, for the reason in its text."""


class LockStalledError(LockError):
    """The lock was held, and none of its holders reported progress, for the whole timeout."""


@contextmanager
def fair_lock(
    path: str, seconds: float, meanwhile: Callable[[], None] = lambda: None
) -> Generator[Callable[[], None]]:
    """Hold the lock of the file `path` for the block; LockError when it cannot be locked at all.

    `meanwhile` is called again and again while others hold the lock; an error that it raises ends the
    wait.

    Yields a function by which the holder reports progress, once it has made some. Those who wait do so
    for as long as holders report it, however many are before them; after `seconds` without any report
    they raise LockStalledError.
    """
    try:
        fd = open_private(partial(os.open, path, _FLAGS, 0o600))
    except OSError as error:
        raise LockError(error.strerror) from error
    try:
        _acquire(fd, seconds, meanwhile)
        yield lambda: os.utime(fd)
    finally:
        # Unlocks; a thread that still waits in flock(2) for it unlocks as soon as it has it, since it has
        # the last reference to the open file then.
        close_private(fd)


def _acquire(fd: int, seconds: float, meanwhile: Callable[[], None]) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except OSError as error:
        raise LockError(error.strerror) from error
    # flock(2) has no timeout: a thread waits in it, so that this one can give up.
    waiter = threading.Thread(target=fcntl.flock, args=(fd, fcntl.LOCK_EX), daemon=True)
    try:
        waiter.start()
    except RuntimeError as error:
        raise LockError(f"somebody has it, and nobody can wait: {error}") from error
    seen = os.fstat(fd).st_mtime_ns
    while True:
        end = time.monotonic() + seconds
        while waiter.is_alive() and (left := end - time.monotonic()) > 0:
            waiter.join(min(left, _INTERVAL))
            meanwhile()
        if not waiter.is_alive():
            return
        before, seen = seen, os.fstat(fd).st_mtime_ns
        if seen == before:
            raise LockStalledError(f"nobody got on for {seconds:g} s")


def lock_holders(*paths: str) -> str:
    """Name the processes that hold a lock on one of these files, from /proc/locks (proc_locks(5)).

    "another process" where that tells of none.
    """
    inodes: set[str] = set()
    for path in paths:
        with suppress(OSError):
            inodes.add(str(os.stat(path).st_ino))
    try:
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return "another process"
    # "->" in the place of the second word marks a process that waits.
    held = [row for row in rows if row[1] != "->" and row[-3].rpartition(":")[2] in inodes]
    pids = {int(row[-4]) for row in held if int(row[-4]) > 0} - {os.getpid()}
    return ", ".join(f"{command_of(pid)} (pid {pid})" for pid in sorted(pids)) or "another process"
