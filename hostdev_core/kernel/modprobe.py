"""Read the configuration of modprobe(8): modprobe.d(5) and the kernel's command line.

A file of it that cannot be read is an error: a line that forbids a module may be in there.
"""

import os
import re
import stat
from typing import NamedTuple

from hostdev_core.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostdev_core.kernel.files import Machine

# In the order in which modprobe reads them: modprobe.d(5).
FOLDERS = (
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
)
LARGEST = 1 << 20  # bytes of one file; people write some lines
_ABSENT = (FileNotFoundError,)
_NULL = os.makedev(1, 3)  # a link to /dev/null hides a file of a later folder
_WORDS = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
# `install NAME /bin/false` is how people forbid a module; true(1) and the shell's `:` load none either.
_NOTHING = frozenset({"false", "true", ":"})
_SHELL = frozenset("&|;`$()<>")


class Line(NamedTuple):
    """A command of modprobe.d, or a word of the kernel's command line, and its place (file, line)."""

    place: str
    words: tuple[str, ...]


class Configuration:
    """The whole configuration of modprobe, and the kernel's of its modules, as read at one moment.

    Raises KernelError naming the file that cannot be read.
    """

    def __init__(self, host: "Machine") -> None:
        self._place = host.path("proc/cmdline")
        self._lines = [*_read_folders(host)]
        self._kernel = _WORDS.findall(_read(host, self._place) or "")

    def blacklisted(self, module: str) -> str | None:
        """Find the place where a module is blacklisted: only `modprobe NAME` loads it, no alias does."""
        for line in self._of("blacklist", module):
            return line.place
        listed = (name for _, names in self._given("modprobe", "blacklist") for name in names)
        return self._place if underscored(module) in map(underscored, listed) else None

    def disabled(self, module: str) -> str | None:
        """Describe the line or word that keeps `modprobe NAME` from loading a module; None without one."""
        for key, value in (word.partition("=")[::2] for word in reversed(self._kernel)):
            # The last one counts, and names modules as the kernel does (kernel/module/main.c).
            if underscored(key) == "module_blacklist":
                if underscored(module) in value.replace('"', "").split(","):
                    return f"{self._place} forbids with module_blacklist={value}"
                break
        for line in self._of("install", module):
            if _does_nothing(line.words[2:]):
                return f"{line.place} disables with `{' '.join(line.words)}`"
        return None

    def replaced(self, module: str) -> str | None:
        """Find the place of an `install` line: a command that modprobe runs instead of loading it."""
        lines = (line for line in self._of("install", module) if not _does_nothing(line.words[2:]))
        return next((line.place for line in lines), None)

    def options(self, module: str) -> list[Line]:
        """Find the lines with options of a module; their `words` are without its name."""
        lines = (Line(line.place, line.words[2:]) for line in self._of("options", module))
        name = underscored(module)
        words = (word for word in self._kernel if "." in word.partition("=")[0])
        given = (word.partition(".") for word in words)
        own = (Line(self._place, (rest,)) for key, _, rest in given if underscored(key) == name)
        return [*lines, *own]

    def soft(self, module: str, written: "Iterable[str]" = ()) -> list[str]:
        """List the modules that `softdep` lines load with it; `written` are the lines of depmod(8)."""
        known = [*self._lines, *(Line("", (*line.split(),)) for line in written)]
        lines = self._of("softdep", module, known)
        return [word for line in lines for word in line.words[2:] if not word.endswith(":")]

    def _of(
        self, command: str, module: str, lines: "Iterable[Line] | None" = None
    ) -> "Iterator[Line]":
        name = underscored(module)
        for line in self._lines if lines is None else lines:
            if line.words[:1] == (command,) and underscored(" ".join(line.words[1:2])) == name:
                yield line

    def _given(self, module: str, option: str) -> "Iterator[tuple[str, list[str]]]":
        """Yield each word of the kernel's command line that sets a module's option, and its values."""
        for word in self._kernel:
            key, _, value = word.partition("=")
            if underscored(key) == f"{module}.{option}":
                yield word, value.replace('"', "").split(",")


def underscored(module: str) -> str:
    """Write a module's name as the kernel does, with underscores; files and users may have dashes."""
    return module.replace("-", "_")


def _does_nothing(command: tuple[str, ...]) -> bool:
    """Whether a command of an `install` line only returns, without the shell's means to do more."""
    words = [word.rpartition("/")[2] for word in command[:1]]
    return not {*words}.isdisjoint(_NOTHING) and _SHELL.isdisjoint(" ".join(command))


def _read_folders(host: "Machine") -> "Iterator[Line]":
    seen: set[str] = set()
    for folder in map(host.path, FOLDERS):
        for name in _names(host, folder):
            if name.endswith(".conf") and not name.startswith(".") and name not in seen:
                seen.add(name)  # an earlier folder's file hides a later one's
                yield from _parse(host, f"{folder}/{name}")


def _names(host: "Machine", folder: str) -> list[str]:
    try:
        host.tell_read(f"list {folder}")
        return sorted(os.listdir(folder))
    except _ABSENT:
        return []
    except OSError as error:
        raise _unread(folder, error.strerror or str(error), error.errno) from error


def _parse(host: "Machine", path: str) -> "Iterator[Line]":
    """Yield the commands of a file; a backslash at a line's end joins it with the next one."""
    whole, first = "", 0
    for number, text in enumerate((_read(host, path) or "").split("\n"), 1):
        first = first if whole else number
        if text.endswith("\\"):
            whole += f"{text[:-1]} "
            continue
        words = (whole + text).split()
        whole = ""
        if words and not words[0].startswith("#"):
            yield Line(f"{path}:{first}", tuple(words))
    if words := whole.split():
        yield Line(f"{path}:{first}", tuple(words))


def _read(host: "Machine", path: str) -> str | None:
    """Read a file's text; None when it is not there, or a folder, which modprobe passes over, too."""
    try:
        host.tell_read(f"read {path}")
        # O_NONBLOCK: a pipe in its place must not block; it is refused below.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except _ABSENT:
        return None
    except OSError as error:
        raise _unread(path, error.strerror or str(error), error.errno) from error
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return None
        is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL
        if not (stat.S_ISREG(status.st_mode) or is_null):
            raise _unread(path, "it is no regular file")
        return _read_all(fd, path)
    except OSError as error:
        raise _unread(path, error.strerror or str(error), error.errno) from error
    finally:
        os.close(fd)


def _read_all(fd: int, path: str) -> str:
    parts: list[bytes] = []
    while data := os.read(fd, LARGEST + 1):
        parts.append(data)
        if sum(map(len, parts)) > LARGEST:
            raise _unread(path, f"it is longer than {LARGEST} bytes")
    return b"".join(parts).decode("utf-8", "replace")


def _unread(path: str, reason: str, errno: int | None = None) -> KernelError:
    return KernelError(
        f"cannot read {path}, which tells modprobe what to do: {reason}",
        path=path,
        value="",
        errno=errno,
    )
