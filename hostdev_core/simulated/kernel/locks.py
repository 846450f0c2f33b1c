"""Locks that live as long as their holder: flock on files and directories of the simulated host."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from hostdev_core.runtime.forks import close_private, open_private

# O_NONBLOCK: opening a pipe that stands in a lock's place does not wait for its writer.
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


@contextmanager
def locked(path: str, *, shared: bool = False, create: bool = True) -> Generator[int, None, None]:
    """Hold the lock of a file or directory; threads exclude each other too.

    A file that is missing is made; without `create` it is a FileNotFoundError.
    """
    flags = _OPEN | (os.O_CREAT if create else 0)
    fd = open_private(partial(os.open, path, flags, 0o600))
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield fd
    finally:
        close_private(fd)


def is_locked(path: str) -> bool:
    """Tell whether the lock is held exclusively; False for a path that is not there."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
