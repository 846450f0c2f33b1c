"""Which processes hold a device: who has its nodes open, from /proc/PID/fd."""

import os
import stat
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

SEARCH_SECONDS = 2.0
"""A search that has not ended by then is content with what it has found."""
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


class _Opened(NamedTuple):
    """A descriptor of a process: `path` below /proc, and what the link there says."""

    pid: int
    path: str
    link: str


def identity(status: os.stat_result) -> Identity:
    """What tells a file from all others: a device node's number, any other file's place.

    A node has its number wherever it stands: in a container's /dev, or deleted already.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind in {stat.S_IFCHR, stat.S_IFBLK}:
        return kind, status.st_rdev, 0
    return kind, status.st_dev, status.st_ino


def find_identity(path: str) -> Identity | None:
    """The identity of the file at a path; None when there is none."""
    try:
        return identity(os.stat(path))
    except OSError:
        return None


def find_openers(wanted: Collection[Identity], folder: str = "/dev") -> tuple[Holder, ...]:
    """The other processes that have one of these device nodes open, from `folder` or their own /dev.

    What may not be read is passed over. Nothing elsewhere is asked for its identity: a file of a
    dead NFS server never answers.
    """
    places = ("/dev/", f"{os.path.realpath(folder)}/")
    found = {
        Holder(each.pid, command_of(each.pid), each.link.removesuffix(" (deleted)"))
        for each in (_opened() if wanted else ())
        if each.link.startswith(places) and find_identity(each.path) in wanted
    }
    return tuple(sorted(found))


def find_vfio_users(address: str) -> tuple[Holder, ...]:
    """The other processes that may have this VFIO device open without any VFIO node.

    A device's descriptor can be handed on, and its group's closed. Which device it is, its fdinfo
    tells on new kernels (`vfio-device-syspath`); else every process that has no VFIO node counts.
    """
    found: set[int] = set()
    unclear: set[int] = set()
    explained: set[int] = set()
    for each in _opened():
        if each.link == _VFIO_DEVICE:
            device = _device_of(each.path)
            unclear |= {each.pid} if device is None else set()
            found |= {each.pid} if device == address else set()
        elif each.link.startswith("/dev/vfio/") and each.link != _VFIO_CONTAINER:
            explained.add(each.pid)
    found |= unclear - explained
    return tuple(Holder(pid, command_of(pid), _VFIO_DEVICE) for pid in sorted(found))


def _device_of(descriptor: str) -> str | None:
    """The PCI address that a VFIO descriptor's fdinfo tells; None where it tells none."""
    try:
        with open(
            descriptor.replace("/fd/", "/fdinfo/"), encoding="utf-8", errors="replace"
        ) as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    paths = [line for line in lines if line.startswith("vfio-device-syspath:")]
    return paths[0].rpartition("/")[2] if paths else None


def _opened() -> Iterator[_Opened]:
    """Every descriptor of every other process, as far as it may be seen and the time suffices."""
    end = time.monotonic() + SEARCH_SECONDS
    for name in (path.rpartition("/")[2] for path in _names("/proc")):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        for path in _descriptors(name):
            try:
                yield _Opened(int(name), path, os.readlink(path))
            except OSError:
                continue
        if time.monotonic() > end:
            return


def _descriptors(pid: str) -> list[str]:
    """Of a process whose first thread has ended, while another is kept by the kernel, that one's."""
    for folder in (f"/proc/{pid}", *_names(f"/proc/{pid}/task")):
        if found := _names(f"{folder}/fd"):
            return found
    return []


def _names(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []


def command_of(pid: int) -> str:
    """The name of a process's program, safe to print; "?" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return printable(file.read().rstrip("\n"))
    except OSError:
        return "?"


def printable(text: str) -> str:
    """A foreign text on one line, without what would play with a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
