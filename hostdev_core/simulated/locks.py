"""Locks that live as long as their holder: flock on files and directories of the simulated host."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress

_held: set[int] = set()


def _drop_in_child() -> None:
    """A forked process inherits descriptors, not the work that they protect."""
    for fd in _held:
        with suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


@contextmanager
def locked(path: str, *, shared: bool = False, create: bool = True) -> Generator[int, None, None]:
    """Hold the lock of a file or directory; threads exclude each other too.

    A file that is missing is made; without `create` it is a FileNotFoundError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    _held.add(fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield fd
    finally:
        _held.discard(fd)
        fcntl.flock(fd, fcntl.LOCK_UN)  # also for a copy in a process forked meanwhile
        os.close(fd)


def is_locked(path: str) -> bool:
    """Whether somebody holds the lock exclusively; False for what is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
