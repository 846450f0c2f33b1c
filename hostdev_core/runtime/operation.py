"""Operations and their liveness.

An operation is alive as long as its lock file is locked. The flock belongs to the open file
description: it falls when the last process that may still write for the operation has ended, also
when that is a thread that hangs in the kernel after SIGKILL. A pid proves neither.
"""

import fcntl
import os
import threading
import uuid
from collections.abc import Container
from contextlib import suppress
from functools import partial

from hostdev_core.errors import WAS_DONE, NotPermittedError, StateError
from hostdev_core.runtime.forks import close_private, open_private
from hostdev_core.runtime.signals import signals_deferred
from hostdev_core.runtime.trusted_files import check_directory

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# Somebody's pipe in a lock's place keeps nobody waiting.
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Operation:
    """One change under way, known by `id` to the records it works on.

    Each thread that may write for it holds it; it ends when the last one has let go. `done` is set when
    all is: an interrupt that comes after that is told so.
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

        Raises StateError, or NotPermittedError, when there is no place for it.
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
            path = _path(state_dir, uuid.uuid4().hex)
            operation = cls(path, open_private(partial(os.open, path, _NEW, 0o600)))
            fcntl.flock(operation.fd, fcntl.LOCK_EX)
            if os.fstat(operation.fd).st_nlink:  # nobody took it for a dead one before that
                return operation
            operation.release()

    def hold(self) -> None:
        """One more thread may write for this operation."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """One thread less; the last one removes the file and unlocks."""
        with signals_deferred():
            with self._lock:
                self._users -= 1
                if self._users:
                    return
            with suppress(OSError):  # whatever became of the directory, what was done stays done
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
    """Whether somebody may still write for an operation.

    False is for ever: no id is used twice. Nothing is created, and the shared lock that this takes
    for a moment is in nobody's way.
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
    """The operations that have a lock file, alive or dead."""
    try:
        return sorted(os.listdir(os.path.join(state_dir, "op")))
    except OSError:
        return []


def forget(state_dir: str, id: str) -> None:
    """Remove what a dead operation left of itself; a living one is left alone."""
    with suppress(OSError):
        fd = open_private(partial(os.open, _path(state_dir, id), _LOOK))
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(_path(state_dir, id))
        finally:
            close_private(fd)


def forget_dead(state_dir: str, *, but: Container[str | None] = ()) -> None:
    """Remove what dead operations left of themselves, but for those that records still name."""
    for name in list_ids(state_dir):
        if name not in but:
            forget(state_dir, name)


def describe(state_dir: str, id: str) -> str:
    """What an operation is doing, for messages: "prepare vm1 (pid 12)"."""
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
