"""The one door to /sys: nothing else reads or writes there.

Paths are given below the mount point ("bus/pci/devices/0000:01:00.0/driver"). Reads say what is
there (`None` when it is not); writes raise KernelError with the errno that write(2) gave.
"""

import errno
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from hostdev_core.door import Door
from hostdev_core.errors import KernelError

PCI_DEVICES = "bus/pci/devices"
PCI_DRIVERS = "bus/pci/drivers"
USB_DEVICES = "bus/usb/devices"
ANOTHER = "another device is there by now"
Only = tuple[str, int]

_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})
# What this process, or the machine, has run out of says nothing of what is there.
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_OPEN = os.O_RDONLY | os.O_CLOEXEC
# An attribute is never a link; a pipe in its place (somebody's simulated host) keeps nobody waiting.
_READ = _OPEN | os.O_NONBLOCK | os.O_NOFOLLOW


class Directory:
    """An open directory: its attributes and links are read without walking the path again."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def names(self) -> list[str]:
        """The names in it, sorted; a directory that went away has none."""
        try:
            return sorted(os.listdir(self._fd))
        except OSError as error:
            _check_short("a directory of sysfs", error)
            return []

    def read(self, name: str) -> str | None:
        """An attribute's text without its final newline; None when there is none."""
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
        except OSError as error:
            _check_short(name, error)
            return None
        try:
            return os.read(fd, 4096).decode("utf-8", "replace").rstrip("\n")
        except OSError:
            return None
        finally:
            os.close(fd)

    def link(self, name: str) -> str | None:
        """The last part of what a link points to ("driver" -> "vfio-pci"); None without a link."""
        try:
            return _last_part(os.readlink(name, dir_fd=self._fd))
        except OSError:
            return None

    def target(self, name: str) -> str | None:
        """All of what a link points to; None without a link."""
        try:
            return os.readlink(name, dir_fd=self._fd)
        except OSError:
            return None


class Sysfs(Door):
    """The sysfs mounted at `root`."""

    def __init__(self, root: str = "/sys") -> None:
        self.root = root

    def path(self, path: str) -> str:
        """The absolute path, for messages and for what other programs are told."""
        return f"{self.root}/{path}"

    @contextmanager
    def directory(self, path: str) -> Generator[Directory | None]:
        """Open a directory for many reads; None when it is not there."""
        try:
            fd = os.open(self.path(path), _OPEN | os.O_DIRECTORY)
        except OSError as error:
            _check_short(self.path(path), error)
            yield None
            return
        try:
            yield Directory(fd)
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; empty when there is none."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError as error:
            _check_short(self.path(path), error)
            return []

    def read(self, path: str) -> str | None:
        """An attribute's text without its final newline; None when it is not there.

        Raises KernelError for every other failure.
        """
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
        try:
            with os.scandir(self.path(path)) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def read_bytes(self, path: str, size: int) -> bytes | None:
        """At most `size` bytes of a file; None when it is not there."""
        try:
            fd = os.open(self.path(path), _READ)
        except OSError as error:
            self._check_gone(path, error)
            return None
        try:
            return os.read(fd, size)
        except OSError as error:
            self._check_gone(path, error)
            return None
        finally:
            os.close(fd)

    def link(self, path: str) -> str | None:
        """The last part of what a link points to; None without a link."""
        try:
            return _last_part(os.readlink(self.path(path)))
        except OSError:
            return None

    def real_path(self, path: str) -> str | None:
        """The path below the root that a link leads to; None when it is not there."""
        try:
            real = os.path.realpath(self.path(path), strict=True)
        except OSError:
            return None
        return os.path.relpath(real, os.path.realpath(self.root))

    def exists(self, path: str) -> bool:
        """Whether anything is at this path."""
        return os.path.lexists(self.path(path))

    def inode(self, path: str) -> int | None:
        """The inode behind a path: a device that is plugged in again has another one."""
        try:
            return os.stat(self.path(path)).st_ino
        except OSError:
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

    def _check_gone(self, path: str, error: OSError) -> None:
        if error.errno not in _GONE:
            raise _read_error(self.path(path), error) from error


def _check_short(path: str, error: OSError) -> None:
    if error.errno in _SHORT:
        raise _read_error(path, error) from error


def _read_error(path: str, error: OSError) -> KernelError:
    return KernelError(
        f"cannot read {path}: {error.strerror}", path=path, value="", errno=error.errno
    )


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
