"""Operations and their liveness.

An operation is alive as long as its lock file is locked. The flock belongs to the open file
description: it falls when the last process that may still write for the operation has ended, also
when that is a thread that hangs in the kernel after SIGKILL. A pid proves neither.
"""

import fcntl
import os
import threading
from collections.abc import Container
from contextlib import suppress
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

    def __init__(self, path: str, fd: int) -> None:
        self.id = os.path.basename(path)
        self.fd = fd
        self.done = False
        self._path = path
        self._users = 1
        self._lock = threading.Lock()

    @classmethod
    def start(cls, state_dir: str, what: str) -> "Operation":
        """Make and lock a new operation; `what` is for messages about it.

        Raises StateError, or NotPermittedError, when its file cannot be made.
        """
        try:
            operation = cls._make(state_dir)
            try:
                os.write(operation.fd, f"{what} (pid {os.getpid()})".encode("utf-8", "replace"))
            except OSError:
                operation.release()
                raise
        except PermissionError as error:
            raise NotPermittedError(f"may not write {state_dir}: {error}; run as root") from error
        except OSError as error:
            raise StateError(f"cannot begin an operation in {state_dir}: {error}") from error
        return operation

    @classmethod
    def _make(cls, state_dir: str) -> "Operation":
        directory = os.path.join(state_dir, "op")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        check_directory(directory, closing=True)
        while True:
            path = _path(state_dir, os.urandom(16).hex())
            operation = cls(path, open_private(partial(os.open, path, _NEW, 0o600)))
            fcntl.flock(operation.fd, fcntl.LOCK_EX)
            # Between the open and the lock, `forget` may take it for a dead one and remove its file.
            if os.fstat(operation.fd).st_nlink:
                return operation
            operation.release()

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

    def __enter__(self) -> "Operation":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.release()
        except BaseException as late:
            error = late
            raise
        finally:
            if self.done and error is not None:
                error.add_note(WAS_DONE)


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
