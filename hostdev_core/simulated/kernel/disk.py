"""The files of a simulated machine: those of its root, and the kernel's own memory.

Below the root, `sys`, `dev`, `proc`, `lib` and `etc` are as on a real machine; `.kernel` is the memory
of the kernel. Files are replaced, never rewritten, so that a reader never sees half of one.
"""

import json
import os
import stat
import threading
from contextlib import AbstractContextManager, suppress
from itertools import count
from typing import cast

from hostdev_core.errors import InputError
from hostdev_core.kernel.files import Texts
from hostdev_core.simulated.kernel.locks import locked

# Not of a Disk: one thread may have two of the same directory, whose counters would name the same file.
_numbers = count()
MEMORY = ".kernel"
FIRST_OWN_GROUP = 100
# O_NONBLOCK: opening a pipe that stands in a log's place does not wait for its reader.
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
MAX_BYTES = 64 << 20  # no file of a simulated host has as many


class Disk:
    """Paths and files of one simulated machine; `sys` is its sysfs, `memory` the kernel's own."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.sys = os.path.join(self.root, "sys")
        self.memory = os.path.join(self.root, MEMORY)
        self.first_free_group = FIRST_OWN_GROUP  # where to begin looking; others may be ahead

    def kernel_lock(self) -> AbstractContextManager[int]:
        """The one lock for all state that devices share; held for a moment only, never twice by a thread."""
        return locked(f"{self.memory}/lock")

    def put(self, path: str, data: str | bytes, mode: int = 0o644) -> None:
        """Set a file (an absolute path) in one step."""
        temporary = self.fresh("tmp")
        make(temporary, data, mode)
        try:
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise

    def fresh(self, folder: str) -> str:
        """Make a unique path, on the same file system as all the rest."""
        number = next(_numbers)
        return f"{self.memory}/{folder}/{os.getpid()}-{threading.get_ident()}-{number}"

    def remember(self, name: str, value: object) -> None:
        """Keep a JSON value in the kernel's memory."""
        self.put(f"{self.memory}/{name}", json.dumps(value))

    def recall(self, name: str) -> dict[str, object]:
        """Read the JSON object of that name; empty when there is none."""
        path = f"{self.memory}/{name}"
        text = read(path)
        try:
            memory: object = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            memory = None
        if not isinstance(memory, dict):
            raise InputError(f"{path} is damaged; make the simulated host anew")
        return cast("dict[str, object]", memory)

    def version(self, name: str) -> tuple[int, ...] | None:
        """Identify the version of a value: inode, time and size of its file, which `remember` replaces."""
        try:
            status = os.stat(f"{self.memory}/{name}")
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def bury(self, path: str) -> None:
        """Remove a directory in one step, by a rename; its content goes after that.

        The empty directory stays, so that its inode stays in use: a later one at this path has another.
        """
        if not os.path.exists(path):
            return
        grave = self.fresh("graveyard")
        try:
            os.rename(path, grave)
        except FileNotFoundError:  # another process was first
            return
        for name in os.listdir(grave):
            remove_tree(f"{grave}/{name}")


def remove_tree(path: str) -> None:
    """Remove a file, a link, or a directory with all below; a path that is gone already is no error."""
    try:
        unlink(path)
    except (IsADirectoryError, PermissionError):  # the errors of unlink(2) for a directory
        for name in names(path):
            remove_tree(f"{path}/{name}")
        with suppress(FileNotFoundError):
            os.rmdir(path)


def make(path: str, data: str | bytes, mode: int = 0o644) -> None:
    """Make a new file with all its content."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data.encode() if isinstance(data, str) else data)
    finally:
        os.close(fd)


def read(path: str) -> str | None:
    """Read the text of a file; None when it is not there."""
    data = read_bytes(path)
    return None if data is None else data.decode("utf-8", "replace")


def read_bytes(path: str, size: int = MAX_BYTES) -> bytes | None:
    """Read at most `size` bytes of a file; None when it is not there.

    InputError for anything else than a regular file: a read of a pipe or a device may never end.
    """
    try:
        check_regular(path)
        return Texts().fetch(path, size)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_regular(path: str) -> None:
    """Raise InputError unless the path is a regular file; OSError when nothing is there."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(
            f"{path} is no regular file, as all files of a simulated host are; make the host anew"
        )


def last_part(path: str) -> str | None:
    """Read the last part of a link's target; None when it is no link."""
    try:
        return os.readlink(path).rpartition("/")[2]
    except OSError:
        return None


def link(target: str, path: str) -> None:
    """Make a relative symbolic link to an absolute path; one that is there stays."""
    with suppress(FileExistsError):
        os.symlink(os.path.relpath(target, os.path.dirname(path)), path)


def unlink(path: str) -> None:
    """Remove a file or link; nothing happens when it is not there."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def names(path: str) -> list[str]:
    """List the names in a directory, sorted; none when it is not there."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
