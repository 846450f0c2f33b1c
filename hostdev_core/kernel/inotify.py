"""Hear of changes of files, and of files that are opened, with inotify(7); Python has no call for it.

What happens while nobody reads waits in the kernel. Its queue ends (fs.inotify.max_queued_events): then one
notice says so, OVERFLOW, and what was lost is not known. A watch is of an inode, and ends with it.
"""

import ctypes
import errno
import os
import struct
from functools import cache
from typing import Any, NamedTuple

from hostdev_core.errors import StateError

# linux/inotify.h
CLOSED_WRITTEN, CLOSED_UNWRITTEN, OPENED = 0x8, 0x10, 0x20
MOVED_FROM, MOVED_TO, CREATED, DELETED = 0x40, 0x80, 0x100, 0x200
DELETED_ITSELF, MOVED_ITSELF = 0x400, 0x800
MODIFIED, UNMOUNTED, OVERFLOW, ENDED = 0x2, 0x2000, 0x4000, 0x8000
DIRECTORY_ONLY, NO_LINK, OF_A_DIRECTORY = 0x01000000, 0x02000000, 0x40000000
_HEAD = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len; then the name
_SIZE = 1 << 16
_LIMITS = {
    errno.ENOSPC: "this user may have no more watches (sysctl fs.inotify.max_user_watches)",
    errno.EMFILE: "this user may have no more queues (sysctl fs.inotify.max_user_instances), or this"
    " process no more open files (ulimit -n)",
}


class Notice(NamedTuple):
    """What has happened to the inode of a watch, or to the file `name` in it, by the bits of `mask`."""

    watch: int
    mask: int
    name: str


@cache  # a process has one C library
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One queue of notices; it can be waited for by its `fileno`."""

    def __init__(self) -> None:
        fd = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise _refused("files")
        self._file = os.fdopen(fd, "rb", buffering=0)

    def fileno(self) -> int:
        """The descriptor, readable while notices wait."""
        return self._file.fileno()

    def add(self, path: str, mask: int) -> int:
        """Watch the inode at a path for these bits, in the place of those that it had; its number.

        FileNotFoundError, NotADirectoryError, PermissionError as open(2). StateError where the user may
        have no more watches.
        """
        watch = _libc().inotify_add_watch(self.fileno(), os.fsencode(path), ctypes.c_uint32(mask))
        if watch < 0:
            raise _refused(path)
        return int(watch)

    def remove(self, watch: int) -> None:
        """End a watch; one that has ended by itself is no error."""
        _libc().inotify_rm_watch(self.fileno(), watch)

    def read(self) -> list[Notice]:
        """Take the notices that wait; none is waited for."""
        found: list[Notice] = []
        while data := self._file.read(_SIZE):  # None when there are no more
            found += _parse(data)
        return found

    def close(self) -> None:
        """End all watches; a second time is harmless."""
        self._file.close()


def _parse(data: bytes) -> list[Notice]:
    found: list[Notice] = []
    start = 0
    while start < len(data):
        watch, mask, _, length = _HEAD.unpack_from(data, start)
        start += _HEAD.size + length
        name = data[start - length : start].rstrip(b"\0")
        found.append(Notice(watch, mask, os.fsdecode(name)))
    return found


def _refused(what: str) -> Exception:
    """Make the error for a refusal: StateError, naming the setting, where a limit is reached."""
    number = ctypes.get_errno()
    if number not in _LIMITS:
        return OSError(number, os.strerror(number), what)
    return StateError(
        f"the kernel lets {what} not be watched: {_LIMITS[number]}. End other programs that watch files, or"
        " raise the limit"
    )
