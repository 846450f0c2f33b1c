"""Turns: the ledger is handed from one to the next, without pauses and without favourites.

SQLite waits by trying again after ever longer pauses: of many processes, one may be passed over
until its patience ends. Here the kernel wakes who waits. A turn ends with its holder, however that
dies.
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

PATIENCE = 0.2
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class TurnError(Exception):
    """There is no turn to be had, for the reason that it tells."""


class CrowdedError(TurnError):
    """Nobody gets on."""


@contextmanager
def turn(
    path: str, seconds: float, meanwhile: Callable[[], None] = lambda: None
) -> Generator[Callable[[], None]]:
    """Hold the lock of the file `path`; CrowdedError when nobody gets on for that long.

    TurnError when it cannot be locked at all. `meanwhile` is called again and again while others have
    it; what that raises ends the wait.

    What it gives is for the holder to call once it has got on: those who wait see then that it is
    crowded, and nobody is stuck.
    """
    try:
        fd = open_private(partial(os.open, path, _FLAGS, 0o600))
    except OSError as error:
        raise TurnError(error.strerror) from error
    try:
        _take(fd, seconds, meanwhile)
        yield lambda: os.utime(fd)
    finally:
        close_private(fd)  # unlocks; a thread that still waits for it lets go as soon as it has it


def _take(fd: int, seconds: float, meanwhile: Callable[[], None]) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except OSError as error:
        raise TurnError(error.strerror) from error
    waiter = threading.Thread(target=fcntl.flock, args=(fd, fcntl.LOCK_EX), daemon=True)
    try:
        waiter.start()
    except RuntimeError as error:
        raise TurnError(f"somebody has it, and nobody can wait: {error}") from error
    seen = os.fstat(fd).st_mtime_ns
    while True:
        end = time.monotonic() + seconds
        while waiter.is_alive() and (left := end - time.monotonic()) > 0:
            waiter.join(min(left, PATIENCE))
            meanwhile()
        if not waiter.is_alive():
            return
        before, seen = seen, os.fstat(fd).st_mtime_ns
        if seen == before:
            raise CrowdedError(f"nobody got on for {seconds:g} s")


def lock_holders(*paths: str) -> str:
    """Who has a lock on one of these files, from /proc/locks (proc_locks(5)); "->" marks who waits."""
    inodes: set[str] = set()
    for path in paths:
        with suppress(OSError):
            inodes.add(str(os.stat(path).st_ino))
    try:
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return "another process"
    held = [row for row in rows if row[1] != "->" and row[-3].rpartition(":")[2] in inodes]
    pids = {int(row[-4]) for row in held if int(row[-4]) > 0} - {os.getpid()}
    return ", ".join(f"{command_of(pid)} (pid {pid})" for pid in sorted(pids)) or "another process"
