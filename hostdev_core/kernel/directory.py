"""Read in one open directory of the sysfs; an absent file is told from a hidden one.

What is absent is None, or nothing in a list. What cannot be seen (EACCES, EIO, ENOMEM, something mounted
over it) may be there, and raises KernelError.
"""

import errno
import os
import stat
from functools import lru_cache

from hostdev_core.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HIDDEN = "something else is mounted over it; run this where the machine's own sysfs is seen whole"
GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})
NO_LINK = GONE | {errno.EINVAL}
OPEN = os.O_RDONLY | os.O_CLOEXEC
# An attribute is never a link. A pipe in its place (in a simulated host's directory) must not block.
_READ = OPEN | os.O_NONBLOCK | os.O_NOFOLLOW


class Directory:
    """An open directory: its attributes and links are read without walking the path again.

    `path` is for messages; `reader` is `Sysfs.reader`.
    """

    __slots__ = ("_fd", "_path", "_reader")

    def __init__(
        self, fd: int, path: str = "", reader: "Callable[[str], None] | None" = None
    ) -> None:
        self._fd = fd
        self._path = path
        self._reader = reader

    def names(self) -> list[str]:
        """List the names in it, sorted; a directory that went away has none."""
        try:
            if self._reader is not None:
                self._reader(f"list {self._path}")
            return sorted(os.listdir(self._fd))
        except OSError as error:
            check_gone(error, self._path)
            return []

    def read(self, name: str) -> str | None:
        """Read an attribute's text, without its final newline; None when there is none."""
        try:
            if self._reader is not None:
                self._reader(f"read {self._path}/{name}")
            return fetch(name, 4096, self._fd).decode("utf-8", "replace").rstrip("\n")
        except OSError as error:
            check_gone(error, self._path, name)
            return None

    def link(self, name: str) -> str | None:
        """Read the last part of a link's target ("driver" -> "vfio-pci"); None without a link."""
        try:
            if self._reader is not None:
                self._reader(f"link {self._path}/{name}")
            return last_part(os.readlink(name, dir_fd=self._fd))
        except OSError as error:
            check_gone(error, self._path, name, NO_LINK)
            return None

    def links(self, folder: str, *names: str) -> tuple[str | None, ...]:
        """Read the last parts of several links of a directory in it ("" for this one)."""
        prefix = f"{folder}/" if folder else ""
        return tuple([self.link(f"{prefix}{name}") for name in names])

    def target(self, name: str) -> str | None:
        """Read a link's target; None without a link."""
        try:
            if self._reader is not None:
                self._reader(f"link {self._path}/{name}")
            return os.readlink(name, dir_fd=self._fd)
        except OSError as error:
            check_gone(error, self._path, name, NO_LINK)
            return None

    def place(self, name: str) -> tuple[int | None, str | None]:
        """Return the inode behind a name in it, as `inode` does, and the target of that link."""
        return self.inode(name), self.target(name)

    def inode(self, name: str) -> int | None:
        """Return the inode behind a name in it; None when nothing is there.

        KernelError where something hides it: the name is a link out of this sysfs.
        """
        try:
            if self._reader is not None:
                self._reader(f"stat {self._path}/{name}")
            return inode_of(name, os.fstat(self._fd).st_dev, self._fd)
        except OSError as error:
            check_gone(error, self._path, name)
            return None


def fetch(path: str, size: int, dir_fd: int | None = None) -> bytes:
    """Read a file with one read(2); OSError also for one that is not regular."""
    fd = os.open(path, _READ, dir_fd=dir_fd)
    try:
        data = os.read(fd, size)
        if not data and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return data
    finally:
        os.close(fd)


def inode_of(path: str, of: int, dir_fd: int | None = None) -> int:
    """Return the inode at a path, which must be on the file system with the number `of`.

    OSError (EXDEV) when something else is mounted over it. The kernel removes a device's links before its
    directory (device_del() in drivers/base/core.c): a link that leads nowhere, for longer than a moment,
    leads to a directory that cannot be seen.
    """
    for _ in range(2):  # one that is plugged in again meanwhile is there at the second look
        try:
            status = os.stat(path, dir_fd=dir_fd)
        except FileNotFoundError:
            os.stat(path, dir_fd=dir_fd, follow_symlinks=False)  # not even a link: it is gone
            continue
        if status.st_dev == of:
            return status.st_ino
        break
    raise OSError(errno.EXDEV, _HIDDEN)


def check_gone(error: OSError, path: str, name: str = "", gone: frozenset[int] = GONE) -> None:
    """Raise KernelError unless the error of a failed read says that nothing is there."""
    if error.errno not in gone:
        where = f"{path}/{name}" if name else path
        raise KernelError(
            f"cannot read {where}: {error.strerror}", path=where, value="", errno=error.errno
        ) from error


@lru_cache(maxsize=4096)  # of texts: the same for every host
def last_part(target: str) -> str | None:
    """Take the name that a link's target ends in; None where it ends in no name."""
    name = target.rpartition("/")[2]
    if not name.isascii():  # the kernel's are; half a surrogate pair could not even be recorded
        name = os.fsencode(name).decode("utf-8", "replace")
    return None if name in {"", ".", ".."} else name
