"""The one door to /sys: nothing else reads or writes there.

Paths are given below the mount point ("bus/pci/devices/0000:01:00.0/driver"). Reads say what is
there: `None`, or nothing in a list, when it is not. What cannot be seen (EACCES, EIO, ENOMEM, ...) is
no answer to that, and raises KernelError; so do writes, with the errno that write(2) gave.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

from hostdev_core.door import Door
from hostdev_core.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PCI_DEVICES = "bus/pci/devices"
PCI_DRIVERS = "bus/pci/drivers"
USB_DEVICES = "bus/usb/devices"
ANOTHER = "another device is there by now"
Only = tuple[str, int]
T = TypeVar("T")

_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})
_NO_LINK = _GONE | {errno.EINVAL}
_OPEN = os.O_RDONLY | os.O_CLOEXEC
# An attribute is never a link; a pipe in its place (somebody's simulated host) keeps nobody waiting.
_READ = _OPEN | os.O_NONBLOCK | os.O_NOFOLLOW


class Directory:
    """An open directory: its attributes and links are read without walking the path again.

    `path` is for messages; `reader` is the door's (`Sysfs.reader`).
    """

    __slots__ = ("_fd", "_path", "_reader")

    def __init__(
        self, fd: int, path: str = "", reader: "Callable[[str], None] | None" = None
    ) -> None:
        self._fd = fd
        self._path = path
        self._reader = reader

    def names(self) -> list[str]:
        """The names in it, sorted; a directory that went away has none."""
        try:
            if self._reader is not None:
                self._reader(f"list {self._path}")
            return sorted(os.listdir(self._fd))
        except OSError as error:
            _check(error, self._path)
            return []

    def read(self, name: str) -> str | None:
        """An attribute's text without its final newline; None when there is none."""
        try:
            if self._reader is not None:
                self._reader(f"read {self._path}/{name}")
            return _fetch(name, 4096, self._fd).decode("utf-8", "replace").rstrip("\n")
        except OSError as error:
            _check(error, self._path, name)
            return None

    def link(self, name: str) -> str | None:
        """The last part of what a link points to ("driver" -> "vfio-pci"); None without a link."""
        target = self.target(name)
        return None if target is None else _last_part(target)

    def target(self, name: str) -> str | None:
        """All of what a link points to; None without a link."""
        try:
            if self._reader is not None:
                self._reader(f"link {self._path}/{name}")
            return os.readlink(name, dir_fd=self._fd)
        except OSError as error:
            _check(error, self._path, name, _NO_LINK)
            return None

    def inode(self, name: str) -> int | None:
        """The inode behind a name in it; None when nothing is there."""
        try:
            if self._reader is not None:
                self._reader(f"stat {self._path}/{name}")
            return os.stat(name, dir_fd=self._fd).st_ino
        except OSError as error:
            _check(error, self._path, name)
            return None


class Sysfs(Door):
    """The sysfs mounted at `root`.

    `reader` is Host.watch_reads's: it is told of each read before it is made.
    """

    reader: "Callable[[str], None] | None" = None

    def __init__(self, root: str = "/sys") -> None:
        self.root = root

    def path(self, path: str) -> str:
        """The absolute path, for messages and for what other programs are told."""
        return f"{self.root}/{path}"

    def check_seen(self, path: str = "bus") -> None:
        """Raise KernelError unless this part of a sysfs is there: what is below it can be missed then.

        Nothing at /sys, or something else mounted over a part of it (a container's), hides devices
        that are there all the same.
        """
        try:
            if self.reader is not None:
                self.reader(f"stat {self.path(path)}")
            if os.stat(self.path(path)).st_dev == os.stat(self.root).st_dev:
                return
            error = OSError(errno.ENOENT, "something else is mounted there")
        except OSError as problem:
            error = problem
        raise KernelError(
            f"the devices of this machine cannot be seen: {self.path(path)}: {error.strerror}; nothing"
            f" was changed. Run this where the machine's own sysfs is mounted at {self.root}",
            path=self.path(path),
            value="",
            errno=error.errno,
        )

    @contextmanager
    def directory(self, path: str) -> Generator[Directory | None]:
        """Open a directory for many reads; None when it is not there."""
        try:
            if self.reader is not None:
                self.reader(f"open {self.path(path)}")
            fd = os.open(self.path(path), _OPEN | os.O_DIRECTORY)
        except OSError as error:
            _check(error, self.path(path))
            yield None
            return
        try:
            yield Directory(fd, self.path(path), self.reader)
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; empty when there is none."""
        return sorted(self._look("list", path, os.listdir) or ())

    def read(self, path: str) -> str | None:
        """An attribute's text without its final newline; None when it is not there."""
        data = self.read_bytes(path, 4096)
        return None if data is None else data.decode("utf-8", "replace").rstrip("\n")

    def glance(self, path: str) -> str | None:
        """An attribute's text where it can be had; None for every reason why not."""
        try:
            return self.read(path)
        except KernelError:
            return None

    def folders(self, path: str) -> list[str]:
        """The names of the directories in a directory; links to directories are none."""
        return self._look("list", path, _folders) or []

    def read_bytes(self, path: str, size: int) -> bytes | None:
        """At most `size` bytes of a file; None when it is not there."""
        return self._look("read", path, partial(_fetch, size=size))

    def link(self, path: str) -> str | None:
        """The last part of what a link points to; None without a link."""
        target = self._look("link", path, os.readlink, _NO_LINK)
        return None if target is None else _last_part(target)

    def real_path(self, path: str) -> str | None:
        """The path below the root that a link leads to; None when it is not there."""
        real = self._look("link", path, partial(os.path.realpath, strict=True))
        return None if real is None else os.path.relpath(real, os.path.realpath(self.root))

    def exists(self, path: str) -> bool:
        """Whether anything is at this path."""
        return self._look("stat", path, os.lstat) is not None

    def inode(self, path: str) -> int | None:
        """The inode behind a path: a device that is plugged in again has another one."""
        status = self._look("stat", path, os.stat)
        return None if status is None else status.st_ino

    def _look(
        self, what: str, path: str, look: "Callable[[str], T]", gone: frozenset[int] = _GONE
    ) -> "T | None":
        try:
            if self.reader is not None:
                self.reader(f"{what} {self.path(path)}")
            return look(self.path(path))
        except OSError as error:
            _check(error, self.path(path), gone=gone)
            return None

    def links(self, path: str) -> int:
        """How many links a directory has: two, and one for each directory in it; 0: not there."""
        try:
            return os.stat(self.path(path)).st_nlink
        except OSError:
            return 0

    def write(self, path: str, value: str, *, only: Only | None = None) -> None:
        """Write one value with one write(2) and return when the kernel has.

        `only` is a device's directory with its inode: nothing is written when another device is
        there by now, or none.

        Raises KernelError with the errno of the open or of the write. No deadline is kept here:
        whoever writes does it from a thread that may be left behind.
        """
        import logging  # here: a reader of sysfs alone should not pay for it

        log = logging.getLogger("hostdev")
        log.debug("write %r to %s", value, self.path(path))
        try:
            with self.changing(f"write {path}"):
                self._write(path, value.encode(), only)
        except OSError as error:
            log.debug("%s: %s", self.path(path), error.strerror)
            raise write_error(self.path(path), value, error) from error

    def _write(self, path: str, data: bytes, only: Only | None) -> None:
        with ExitStack() as stack:
            name, folder = self.path(path), None
            if only is not None:
                folder = os.open(self.path(only[0]), _OPEN | os.O_DIRECTORY)
                stack.callback(os.close, folder)
                if os.fstat(folder).st_ino != only[1]:
                    raise OSError(errno.ENODEV, ANOTHER)
                if path.startswith(inner := f"{only[0]}/"):
                    name = path.removeprefix(inner)  # its own, although another takes its place
            fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
            stack.callback(os.close, fd)
            os.write(fd, data)


def _fetch(path: str, size: int, dir_fd: int | None = None) -> bytes:
    fd = os.open(path, _READ, dir_fd=dir_fd)
    try:
        data = os.read(fd, size)
        if not data and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return data
    finally:
        os.close(fd)


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _check(error: OSError, path: str, name: str = "", gone: frozenset[int] = _GONE) -> None:
    """Raise KernelError for a failed read that does not say that nothing is there."""
    if error.errno not in gone:
        where = f"{path}/{name}" if name else path
        raise KernelError(
            f"cannot read {where}: {error.strerror}", path=where, value="", errno=error.errno
        ) from error


def _last_part(target: str) -> str | None:
    """The name that a link's target ends in; None where it ends in no name."""
    name = target.rpartition("/")[2]
    if not name.isascii():  # the kernel's are; half a surrogate pair could not even be recorded
        name = os.fsencode(name).decode("utf-8", "replace")
    return None if name in {"", ".", ".."} else name


def write_error(path: str, value: str, error: OSError) -> KernelError:
    """The KernelError for a write that the kernel refused."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return KernelError(
        f"the kernel refused {value!r} for {path}: {error.strerror} ({name})",
        path=path,
        value=value,
        errno=error.errno,
    )
