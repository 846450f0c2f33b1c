"""Keep the ledger's lock and descriptors of other work out of forked processes.

A fork waits while another thread is between two steps that belong together. Both locks are always taken
in the order in which they stand here, so that no two threads wait for each other.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial

from hostdev_core.errors import StateError

# Errors of fork(2), open(2) and their like where processes, memory or descriptors run out.
SHORTAGES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
# Of the process, not of a host: a fork copies all of it, and what runs around a fork gets no argument.
ledger_lock = threading.RLock()  # held during a transaction; descriptors may be opened inside
_opening = threading.RLock()
_private: set[int] = set()


def open_private(opened: Callable[[], int]) -> int:
    """Open a descriptor that no process forked from now on keeps; `close_private` closes it."""
    with _opening:
        fd = opened()
        _private.add(fd)
        return fd


def close_private(fd: int) -> None:
    """Close a descriptor of `open_private`."""
    with _opening:
        _private.discard(fd)
        os.close(fd)


def above_streams(fd: int) -> int:
    """Move a descriptor above the numbers of the standard streams, which a caller may have closed."""
    if fd > 2:
        return fd
    higher = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return higher


@contextmanager
def private(path: str, flags: int) -> Generator[int]:
    """Open a path for the block, in a descriptor that no process forked meanwhile keeps."""
    fd = open_private(partial(os.open, path, flags | os.O_CLOEXEC))
    try:
        yield fd
    finally:
        close_private(fd)


@contextmanager
def explaining_shortages() -> Generator[None]:
    """Turn a lack of processes, memory or descriptors into StateError while a process is started."""
    try:
        yield
    except OSError as error:
        if error.errno not in SHORTAGES:
            raise
        raise StateError(
            f"no process can be started for this: {error.strerror}; nothing was changed. Raise the"
            " limit of processes, or of open files, and try again"
        ) from error


def _before() -> None:
    # Taken for the fork: else the child could have a lock taken by a thread that it does not have.
    ledger_lock.acquire()
    _opening.acquire()


def _after_in_parent() -> None:
    _opening.release()
    ledger_lock.release()


def _after_in_child() -> None:
    """Close the private descriptors; the parent, which has the same open files, keeps their locks."""
    for fd in _private:
        with suppress(OSError):
            os.close(fd)
    _private.clear()
    _after_in_parent()


# For every fork, whose code ever makes it: multiprocessing, a plugin, the worker.
os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
