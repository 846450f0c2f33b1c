"""Operations and their liveness.

An operation is alive as long as its lock file is locked. The flock belongs to the open file
description: it falls when the last process that may still write for the operation has ended, also
when that is a thread that hangs in the kernel after SIGKILL. A pid proves neither.
"""

import fcntl
import os
import threading
from collections.abc import Container, Generator
from contextlib import contextmanager, suppress
from functools import partial

from hostdev_core.errors import WAS_DONE, NotPermittedError, StateError
from hostdev_core.runtime.forks import close_private, open_private
from hostdev_core.runtime.signals import signals_deferred
from hostdev_core.runtime.trusted_files import check_directory

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# O_NONBLOCK: a pipe that somebody put in a lock's place would keep the open waiting.
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Operation:
    """One change under way, known by `id` to the records it works on.

    Each thread that may write for it holds it; it ends when the last one has released it. `done` is set
    when all is written: an error that is raised after that gets a note, WAS_DONE.
    """

    def __init__(self) -> None:
        self.id = ""
        self.fd = -1
        self.done = False
        self._path = ""
        self._users = 0
        self._has_ended = True  # nothing is open yet
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def start(cls, state_dir: str, what: str) -> "Generator[Operation]":
        """Make and lock a new operation, and hold it for the block; `what` is for messages about it.

        Raises StateError, or NotPermittedError, when its file cannot be made.
        """
        # A generator: where an interrupt keeps the block from being entered or left in order, Python
        # closes it with the last reference to it.
        operation = cls()
        try:
            try:
                operation._open(state_dir, what)
                yield operation
            finally:
                operation._end()
        except BaseException as error:
            operation._end()  # again: an interrupt may have kept the first from beginning
            if operation.done:
                error.add_note(WAS_DONE)
            raise

    # A signal between the open and the assignment would leave the lock taken as long as the process lives.
    @signals_deferred()
    def _open(self, state_dir: str, what: str) -> None:
        try:
            directory = os.path.join(state_dir, "op")
            os.makedirs(directory, mode=0o700, exist_ok=True)
            check_directory(directory, closing=True)
            self._make(state_dir)
            os.write(self.fd, f"{what} (pid {os.getpid()})".encode("utf-8", "replace"))
        except PermissionError as error:
            raise NotPermittedError(f"may not write {state_dir}: {error}; run as root") from error
        except OSError as error:
            raise StateError(f"cannot begin an operation in {state_dir}: {error}") from error

    def _make(self, state_dir: str) -> None:
        """Make and lock the file; `_end` removes it, also when it was not locked."""
        while True:
            self._path = _path(state_dir, os.urandom(16).hex())
            self.fd = open_private(partial(os.open, self._path, _NEW, 0o600))
            self.id, self._users, self._has_ended = os.path.basename(self._path), 1, False
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            # Between the open and the lock, `forget` may take it for a dead one and remove its file.
            if os.fstat(self.fd).st_nlink:
                return
            self._end()

    @signals_deferred()
    def _end(self) -> None:
        """Release it for the block of `start`; a second call does nothing."""
        if not self._has_ended:
            self._has_ended = True
            self.release()

    def hold(self) -> None:
        """Count one more thread that may write for this operation."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Count one thread less; the last one removes the file and unlocks."""
        with signals_deferred():
            with self._lock:
                self._users -= 1
                if self._users:
                    return
            with suppress(OSError):  # the directory may be gone, and the change stays done
                os.unlink(self._path)
            close_private(self.fd)


@signals_deferred()  # a signal after the open would leave the descriptor open
def is_alive(state_dir: str, id: str) -> bool:
    """Whether a thread of any process may still write for an operation.

    False is for ever: no id is used twice. Nothing is created, and the shared lock that this takes for a
    moment keeps no other process from looking, too.
    """
    try:
        fd = open_private(partial(os.open, _path(state_dir, id), _LOOK))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateError(f"cannot tell whether operation {id} is alive: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        close_private(fd)
    return False


def list_ids(state_dir: str) -> list[str]:
    """List the operations that have a lock file, alive or dead."""
    try:
        return sorted(os.listdir(os.path.join(state_dir, "op")))
    except OSError:
        return []


@signals_deferred()
def forget(state_dir: str, id: str) -> None:
    """Remove the lock file of a dead operation; that of a living one is left alone."""
    with suppress(OSError):
        fd = open_private(partial(os.open, _path(state_dir, id), _LOOK))
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(_path(state_dir, id))
        finally:
            close_private(fd)


def forget_dead(state_dir: str, *, but: Container[str | None] = ()) -> None:
    """Remove the lock files of all dead operations but those that records still name."""
    for name in list_ids(state_dir):
        if name not in but:
            forget(state_dir, name)


def describe(state_dir: str, id: str) -> str:
    """Describe an operation for messages: "prepare vm1 (pid 12)"."""
    try:
        fd = os.open(_path(state_dir, id), _LOOK)
    except OSError:
        return "an operation that has ended"
    try:
        return os.read(fd, 400).decode("utf-8", "replace") or "an unknown operation"
    except OSError:
        return "an unknown operation"
    finally:
        os.close(fd)


def _path(state_dir: str, id: str) -> str:
    return os.path.join(state_dir, "op", os.path.basename(id))
