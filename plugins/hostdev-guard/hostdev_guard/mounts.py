"""What is mounted and what is swapped to, as /proc says (proc(5))."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from hostdev_core import Host

_ESCAPE = re.compile(r"\\([0-7]{3})")


class UnreadableError(RuntimeError):
    """What the guard has to know cannot be read: it raises, and that refuses."""


class Mount(NamedTuple):
    """A mounted file system; `number` is the "major:minor" of its device, major 0 for none."""

    number: str
    point: str
    type: str
    source: str
    options: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Whether an absolute path is at or below the mount point."""
        return path == self.point or path.startswith(self.point.rstrip("/") + "/")


class Swap(NamedTuple):
    """Something that is swapped to: a device's node, or a file."""

    path: str
    is_file: bool


def read_mounts(host: Host) -> list[Mount]:
    """The mounts that this process sees, and those of process 1, where it may be asked.

    Raises UnreadableError without the former: then nobody knows what is mounted.
    """
    own = read_proc(host, "proc/self/mountinfo")
    if own is None:
        raise UnreadableError(f"there is no {host.path('proc/self/mountinfo')}; mount /proc")
    try:
        first = read_proc(host, "proc/1/mountinfo") or ""
    except UnreadableError:
        if os.geteuid() == 0:
            raise
        first = ""  # only root changes anything, and it may read that
    lines = f"{own}\n{first}".split("\n")  # a mount point may hold what splitlines() splits at
    return [*dict.fromkeys(parse_mount(line) for line in lines if line)]


def parse_mount(line: str) -> Mount:
    """One line of mountinfo: six fields, more of them, a dash, then type, source and options."""
    fields = line.split(" ")
    try:
        dash = fields.index("-", 6)
        number, point = fields[2], unescape(fields[4])
        type_, source, options = fields[dash + 1], unescape(fields[dash + 2]), fields[dash + 3]
    except (ValueError, IndexError):
        raise UnreadableError(f"{line!r} is no line of /proc/self/mountinfo") from None
    return Mount(number, point, type_, source, tuple(map(unescape, options.split(","))))


def read_swaps(host: Host) -> Iterator[Swap]:
    """What /proc/swaps lists; a kernel without swap has no such file."""
    for line in (read_proc(host, "proc/swaps") or "").rstrip("\n").split("\n")[1:]:
        fields = re.split("[ \t]+", line)
        if len(fields) < 2:
            raise UnreadableError(f"{line!r} is no line of /proc/swaps")
        yield Swap(unescape(fields[0]).removesuffix(" (deleted)"), fields[1] == "file")


def unescape(text: str) -> str:
    """The kernel writes white space and backslashes as three octal digits."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def read_proc(host: Host, path: str) -> str | None:
    """A file of /proc; None when it is not there."""
    try:
        with open(
            host.path(path), encoding="utf-8", errors="replace", newline="\n", opener=_open_at_once
        ) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise UnreadableError(f"cannot read {host.path(path)}: {error.strerror}") from error


def _open_at_once(path: str, flags: int) -> int:
    """A pipe or a device in a file's place (a simulated host) keeps nobody waiting."""
    fd = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is no regular file")
