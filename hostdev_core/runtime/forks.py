"""What a forked process must not take along: the ledger's locks, and descriptors of other work.

A fork waits while another thread is between two steps that belong together; both locks are taken in
one order here, so that nobody waits in a circle.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial

from hostdev_core.errors import StateError

SHORT = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
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
    """This descriptor by a number above those of the standard streams, where these are closed."""
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
def starting() -> Generator[None]:
    """Start a process, and open what is needed to hear it; StateError when that is one too many."""
    try:
        yield
    except OSError as error:
        if error.errno not in SHORT:
            raise
        raise StateError(
            f"no process can be started for this: {error.strerror}; nothing was changed. Raise the"
            " limit of processes, or of open files, and try again"
        ) from error


def _before() -> None:
    ledger_lock.acquire()
    _opening.acquire()


def _after_in_parent() -> None:
    _opening.release()
    ledger_lock.release()


def _after_in_child() -> None:
    """A forked process works for nobody of its parent; closing does not unlock."""
    for fd in _private:
        with suppress(OSError):
            os.close(fd)
    _private.clear()
    _after_in_parent()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
