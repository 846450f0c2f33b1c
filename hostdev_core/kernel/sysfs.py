"""Read and write /sys; no other module does.

Paths are given below the mount point ("bus/pci/devices/0000:01:00.0/driver"). A read of what is absent
returns `None`, or nothing in a list. What cannot be seen (EACCES, EIO, ENOMEM, ...) may be there, and
raises KernelError; so do failed writes, with the errno of write(2).
"""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from typing import TypeVar

from hostdev_core.errors import KernelError
from hostdev_core.kernel.directory import (
    GONE,
    NO_LINK,
    OPEN,
    Directory,
    check_gone,
    fetch,
    inode_of,
    last_part,
)
from hostdev_core.kernel.watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

IOMMU_GROUPS = "kernel/iommu_groups"
PCI_DEVICES = "bus/pci/devices"
PCI_DRIVERS = "bus/pci/drivers"
USB_DEVICES = "bus/usb/devices"
ANOTHER = "it was unplugged, and another device is there by now"
Only = tuple[str, int]
_DEBUG = 10  # logging.DEBUG
T = TypeVar("T")


class Sysfs(Watched):
    """The sysfs mounted at `root`.

    `reader`, which Host.watch_reads sets, is called with each read before it is made.
    """

    reader: "Callable[[str], None] | None" = None
    _log: "logging.Logger | None" = None
    _file_system = -1  # the number of the one at the root, as far as it was looked at

    def __init__(self, root: str = "/sys") -> None:
        self.root = root

    def path(self, path: str) -> str:
        """Make the absolute path, for messages and for other programs."""
        return f"{self.root}/{path}"

    def check_seen(self, path: str = "bus") -> None:
        """Raise KernelError unless this part of the sysfs is there: else devices would seem to be absent.

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

    def check_bus(self, devices: str) -> None:
        """Raise KernelError unless a bus's devices can be seen; a kernel may be without the bus."""
        self.check_seen(devices if self.exists(os.path.dirname(devices)) else "bus")

    @contextmanager
    def directory(self, path: str) -> Generator[Directory | None]:
        """Open a directory for many reads; None when it is not there."""
        try:
            if self.reader is not None:
                self.reader(f"open {self.path(path)}")
            fd = os.open(self.path(path), OPEN | os.O_DIRECTORY)
        except OSError as error:
            check_gone(error, self.path(path))
            yield None
            return
        try:
            yield Directory(fd, self.path(path), self.reader)
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """List the names in a directory, sorted; none when it is not there."""
        place = f"{self.root}/{path}"
        try:
            if self.reader is not None:
                self.reader(f"list {place}")
            return sorted(os.listdir(place))
        except OSError as error:
            check_gone(error, place)
            return []

    def read(self, path: str) -> str | None:
        """Read an attribute's text, without its final newline; None when it is not there."""
        data = self.read_bytes(path, 4096)
        return None if data is None else data.decode("utf-8", "replace").rstrip("\n")

    def read_each(self, folder: str, *names: str) -> tuple[str | None, ...]:
        """Read several attributes of a directory, as `read` does each."""
        return tuple([self.read(f"{folder}/{name}") for name in names])

    def glance(self, path: str) -> str | None:
        """Read an attribute's text for messages; None when that fails, for any reason.

        No decision may depend on it: a failed read would pass for an attribute that is absent.
        """
        try:
            return self.read(path)
        except KernelError:
            return None

    def folders(self, path: str) -> list[str]:
        """List the directories in a directory, without links to directories."""
        return self._look("list", path, _folders) or []

    def read_bytes(self, path: str, size: int) -> bytes | None:
        """Read at most `size` bytes of a file; None when it is not there."""
        place = f"{self.root}/{path}"
        try:
            if self.reader is not None:
                self.reader(f"read {place}")
            return fetch(place, size)
        except OSError as error:
            check_gone(error, place)
            return None

    def link(self, path: str) -> str | None:
        """Read the last part of a link's target; None without a link."""
        place = f"{self.root}/{path}"
        try:
            if self.reader is not None:
                self.reader(f"link {place}")
            return last_part(os.readlink(place))
        except OSError as error:
            check_gone(error, place, gone=NO_LINK)
            return None

    def real_path(self, path: str) -> str | None:
        """Resolve a link to a path below the root; None when it is not there."""
        real = self._look("link", path, partial(os.path.realpath, strict=True))
        return None if real is None else os.path.relpath(real, os.path.realpath(self.root))

    def exists(self, path: str) -> bool:
        """Whether anything is at this path."""
        place = f"{self.root}/{path}"
        try:
            if self.reader is not None:
                self.reader(f"stat {place}")
            os.lstat(place)
        except OSError as error:
            check_gone(error, place)
            return False
        return True

    def inode(self, path: str) -> int | None:
        """Return the inode behind a path: a device that is plugged in again has another one.

        KernelError where something hides it: the path leads out of this sysfs.
        """
        place = f"{self.root}/{path}"
        try:
            if self.reader is not None:
                self.reader(f"stat {place}")
            return inode_of(place, self._file_system)
        except OSError as error:
            if error.errno == errno.EXDEV and self._is_another_file_system():
                return self.inode(path)
            check_gone(error, place)
            return None

    def _is_another_file_system(self) -> bool:
        """Whether another one is mounted at the root than was seen last, or none was looked at yet."""
        try:
            before, self._file_system = self._file_system, os.stat(self.root).st_dev
        except OSError:
            return False
        return before != self._file_system

    def _look(
        self, what: str, path: str, look: "Callable[[str], T]", gone: frozenset[int] = GONE
    ) -> "T | None":
        try:
            if self.reader is not None:
                self.reader(f"{what} {self.path(path)}")
            return look(self.path(path))
        except OSError as error:
            check_gone(error, self.path(path), gone=gone)
            return None

    def links(self, path: str) -> int:
        """Count a directory's links: two, and one for each directory in it; 0 when it is not there."""
        status = self._look("stat", path, os.stat)
        return 0 if status is None else status.st_nlink

    def write(self, path: str, value: str, *, only: Only | None = None) -> None:
        """Write one value with one write(2) and return when the kernel has.

        `only` is a device's directory with its inode: nothing is written when another device is
        there by now, or none.

        Raises KernelError with the errno of the open or of the write. No deadline is kept here: the caller
        writes in a lane, which may be left behind.
        """
        log = self._log or self._find_log()
        if log.isEnabledFor(_DEBUG):
            log.debug("write %r to %s", value, self.path(path))
        try:
            if self.watcher is None:
                self._write(path, value.encode(), only)
            else:
                with self.changing(f"write {path}"):
                    self._write(path, value.encode(), only)
        except OSError as error:
            log.debug("%s: %s", self.path(path), error.strerror)
            raise write_error(self.path(path), value, error) from error

    def _find_log(self) -> "logging.Logger":
        import logging  # here: a reader of sysfs alone should not pay for it

        self._log = logging.getLogger("hostdev")
        return self._log

    def _write(self, path: str, data: bytes, only: Only | None) -> None:
        if only is None:
            _write_to(self.path(path), data)
            return
        folder = os.open(self.path(only[0]), OPEN | os.O_DIRECTORY)
        try:
            if os.fstat(folder).st_ino != only[1]:
                raise OSError(errno.ENODEV, ANOTHER)
            inner = f"{only[0]}/"
            if path.startswith(inner):  # its own, although another takes its place
                _write_to(path.removeprefix(inner), data, folder)
            else:
                _write_to(self.path(path), data)
        finally:
            os.close(folder)


def _write_to(path: str, data: bytes, folder: int | None = None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(fd, data)  # one call: sysfs passes each write(2) to the driver by itself
    finally:
        os.close(fd)


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        # By filter(): a directory has dozens of links and attributes.
        folders = filter(methodcaller("is_dir", follow_symlinks=False), entries)
        return [entry.name for entry in folders]


def write_error(path: str, value: str, error: OSError) -> KernelError:
    """Make the KernelError for a write that the kernel refused."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return KernelError(
        f"the kernel refused {value!r} for {path}: {error.strerror} ({name})",
        path=path,
        value=value,
        errno=error.errno,
    )
