"""Find the processes that hold a device: those that have its nodes open, from /proc/PID/fd."""

import os
import stat
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

SEARCH_SECONDS = 2.0
"""A search that is only for a message ends then, with the processes found so far."""
INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_VFIO_DEVICE = "anon_inode:[vfio-device]"
_VFIO_CONTAINER = "/dev/vfio/vfio"

Identity = tuple[int, int, int]


class Holder(NamedTuple):
    """A process that has a node of a device open."""

    pid: int
    command: str
    node: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid}, {self.node})"


class Search(NamedTuple):
    """The processes found, each with the node it has open, and why others may have been missed.

    `cut`: why the search did not come to its end. `hidden`: which processes may not be looked at from
    here. With either, a search that found none does not prove that there is none.
    """

    found: tuple[tuple[Identity, Holder], ...] = ()
    cut: str | None = None
    hidden: str | None = None

    @property
    def holders(self) -> tuple[Holder, ...]:
        """The processes, each node of one named once."""
        return tuple(sorted({holder for _, holder in self.found}))


class _Opened(NamedTuple):
    """A descriptor of a process: its `path` in /proc, and the target of the link there."""

    pid: int
    path: str
    link: str


def identity(status: os.stat_result) -> Identity:
    """Identify a file: a device node by its number, any other file by its file system and inode.

    A node has the same number in a container's /dev, and when it is deleted already.
    """
    return _identity(status.st_mode, status.st_ino, status.st_rdev, status.st_dev)


def _identity(mode: int, inode: int, number: int, on: int) -> Identity:
    kind = stat.S_IFMT(mode)
    return (kind, number, 0) if kind in {stat.S_IFCHR, stat.S_IFBLK} else (kind, on, inode)


def find_identity(path: str) -> Identity | None:
    """Identify the file at a path; None when there is none."""
    try:
        return identity(os.stat(path))
    except OSError:
        return None


def find_openers(wanted: Collection[Identity], seconds: float = SEARCH_SECONDS) -> Search:
    """Find the other processes that have one of these device nodes open.

    By number: the node may be in the /dev of a chroot or of another mount namespace, or be deleted.
    """
    if not wanted:
        return Search()
    walk = _Walk(seconds)
    # A link without a slash is a pipe, a socket or an anonymous inode: none is a node.
    found = [
        (known, Holder(each.pid, command_of(each.pid), each.link.removesuffix(" (deleted)")))
        for each in walk.opened()
        if "/" in each.link and (known := walk.identity_of(each)) in wanted
    ]
    return Search(tuple((known, holder) for known, holder in found if known), walk.cut, walk.hidden)


def find_vfio_users(address: str) -> tuple[Holder, ...]:
    """Find the other processes that may have this VFIO device open without any VFIO node.

    A device's descriptor can be handed to another process, and its group's closed. New kernels name the
    device in the descriptor's fdinfo (`vfio-device-syspath`); on others, each process counts that has a
    VFIO device and no VFIO node.
    """
    found: set[int] = set()
    unclear: set[int] = set()
    explained: set[int] = set()
    for each in _Walk(SEARCH_SECONDS).opened():
        if each.link == _VFIO_DEVICE:
            device = _device_of(each.path)
            unclear |= {each.pid} if device is None else set()
            found |= {each.pid} if device == address else set()
        elif each.link.startswith("/dev/vfio/") and each.link != _VFIO_CONTAINER:
            explained.add(each.pid)
    found |= unclear - explained
    return tuple(Holder(pid, command_of(pid), _VFIO_DEVICE) for pid in sorted(found))


def _device_of(descriptor: str) -> str | None:
    """Read the PCI address in a VFIO descriptor's fdinfo; None where it has none."""
    try:
        with open(
            descriptor.replace("/fd/", "/fdinfo/"), encoding="utf-8", errors="replace"
        ) as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    paths = [line for line in lines if line.startswith("vfio-device-syspath:")]
    return paths[0].rpartition("/")[2] if paths else None


class _Walk:
    """Goes through all descriptors of all other processes once; `cut` and `hidden` as in Search."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.cut: str | None = None
        self.hidden = _hidden_processes()

    def opened(self) -> Iterator[_Opened]:
        """Yield every descriptor that may be seen, until the time is over."""
        end = time.monotonic() + self._seconds
        mine = str(os.getpid())
        for pid in (name for name in self._names("/proc") if name.isdecimal() and name != mine):
            yield from self._of_process(pid)
            if time.monotonic() > end:
                self.cut = f"the search of /proc has not ended within {self._seconds:g} s"
                return

    def _of_process(self, pid: str) -> Iterator[_Opened]:
        """Yield a process's descriptors: those of its first thread that has any."""
        # A first thread that has ended has none, while another one may still be in the kernel.
        own = f"/proc/{pid}"
        tasks = (f"{own}/task/{name}" for name in self._names(f"{own}/task", int(pid)))
        for folder in (own, *tasks):
            opened = 0
            for each in self._of_thread(int(pid), f"{folder}/fd"):
                opened += 1
                yield each
            if opened:
                return

    def _of_thread(self, pid: int, folder: str) -> Iterator[_Opened]:
        """Yield a thread's descriptors."""
        try:
            # Links are read relative to it: the path is walked once, not for each of 100,000 files.
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self._note(pid, error)
            return
        try:
            for name in os.listdir(place):
                try:
                    link = os.readlink(name, dir_fd=place)
                except OSError as error:
                    self._note(pid, error)
                else:
                    yield _Opened(pid, f"{folder}/{name}", link)
        except OSError as error:
            self._note(pid, error)
        finally:
            os.close(place)

    def identity_of(self, opened: _Opened) -> Identity | None:
        """Identify a descriptor's file; None for one that is closed meanwhile, or cannot be asked."""
        from hostdev_core.kernel.statx import (
            known_status,  # here: ctypes, which a listing does without
        )

        try:
            return _identity(*known_status(opened.path))
        except OSError as error:
            self._note(opened.pid, error)
            return None

    def _names(self, folder: str, pid: int | None = None) -> list[str]:
        try:
            return os.listdir(folder)
        except OSError as error:
            if pid is not None:
                self._note(pid, error)
            else:
                self.cut = self.cut or f"{folder} cannot be read: {error.strerror}"
            return []

    def _note(self, pid: int, error: OSError) -> None:
        """Set `hidden` or `cut` for an error of a look, unless the process or file has only gone."""
        if isinstance(error, PermissionError):
            what = f"the files of {command_of(pid)} (pid {pid}) may not be looked at"
            self.hidden = self.hidden or what
        elif not isinstance(error, FileNotFoundError | ProcessLookupError | NotADirectoryError):
            self.cut = self.cut or f"/proc/{pid} cannot be read: {error.strerror}"


def _hidden_processes() -> str | None:
    """Describe why /proc may not show all processes of the machine; None when it does."""
    if not os.path.exists("/proc/1"):  # mounted with hidepid (proc(5))
        return "/proc does not show the processes of others"
    try:
        if is_initial_namespace():
            return None
    except OSError:
        pass
    return "processes outside this PID namespace are not seen"


def is_initial_namespace(proc: str = "/proc") -> bool:
    """Whether this process is in the machine's own pid namespace; OSError when that cannot be read."""
    return os.stat(f"{proc}/self/ns/pid").st_ino == INITIAL_PID_NAMESPACE


def find_namespaces() -> tuple[str, ...]:
    """List the network namespaces other than this process's, each as a process that is in it."""
    found: dict[Identity, str] = {}
    mine = find_identity("/proc/self/ns/net")
    for name in sorted(filter(str.isdecimal, _names("/proc")), key=int):
        space = find_identity(f"/proc/{name}/ns/net")
        if space is not None and mine is not None and space != mine and space not in found:
            found[space] = f"{command_of(int(name))} (pid {name})"
    return tuple(found.values())


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def command_of(pid: int) -> str:
    """Read the name of a process's program, made safe to print; "?" when the process is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return printable(file.read().rstrip("\n"))
    except OSError:
        return "?"


def printable(text: str) -> str:
    """Replace each character of a text that cannot be printed, as those that control a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
