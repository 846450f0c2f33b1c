"""The kernel's log (Documentation/ABI/testing/dev-kmsg), and what it says of a crash.

Its times are of another clock than any that a process can read: that one is set by nobody, and is
apart from time.monotonic() by more the longer a machine runs (a processor's clock is measured again
after the boot: "Refined TSC clocksource calibration"). They tell little: what is said from now on stands
behind its present end, and the thread that a crash ended is named in it.
"""

import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple, Self

# Of x86, of arm64, and of a BUG_ON: the lines of a report that say what happened.
OOPS = ("BUG:", "kernel BUG at", "Oops:", "Unable to handle", "general protection fault")
_MOST_MESSAGES = 1 << 16  # there are fewer
_SHOWN = 5


class Message(NamedTuple):
    """A message's time, in seconds of the log's own clock, and its first line."""

    seconds: float
    text: str


class KernelLog:
    """The kernel's log from the moment on at which this was made; a context manager that closes it.

    Where a file is in its place (somebody's simulated host), times tell what is later.
    """

    def __init__(self, path: str | None) -> None:
        self._fd = _open(path)
        self._since = 0.0
        with suppress(OSError):
            if self._fd is not None and stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._since = time.monotonic()
            elif self._fd is not None:
                os.lseek(self._fd, 0, os.SEEK_END)

    def lines(self, *words: str) -> list[str]:
        """The last messages with one of these words; at most five."""
        return find_lines(_read(self._fd), words, self._since)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._fd is not None:
            os.close(self._fd)


def read_log(path: str | None) -> Iterator[Message]:
    """All messages that are there now; none where they cannot be read."""
    fd = _open(path)
    try:
        yield from _read(fd)
    finally:
        if fd is not None:
            os.close(fd)


def _open(path: str | None) -> int | None:
    try:
        return None if path is None else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None


def _read(fd: int | None) -> Iterator[Message]:
    """What is left to read there."""
    with suppress(OSError, ValueError, IndexError):  # the end of the log is EAGAIN
        for _ in range(0 if fd is None else _MOST_MESSAGES):
            if not (data := os.read(fd or 0, 8192)):
                break
            prefix, _, text = data.decode("utf-8", "replace").partition(";")
            yield Message(float(prefix.split(",")[2]) / 1e6, text.partition("\n")[0])


def find_lines(messages: Iterable[Message], words: Collection[str], since: float) -> list[str]:
    """The last messages with one of these words from `since` (time.monotonic()) on."""
    found = [m.text for m in messages if any(word in m.text for word in words)
             and m.seconds >= since - 0.01]  # fmt: skip
    return found[-_SHOWN:]


def find_oops(texts: Iterable[str], thread: int) -> list[str]:
    """What the kernel said of the crash that ended this thread; nothing of other threads'.

    Its report names the thread after the crash itself: "CPU: 0 PID: 252 Comm: python".
    """
    found: list[str] = []
    told: list[str] = []
    for text in texts:
        if any(word in text for word in OOPS):
            told.append(text)
        elif " PID: " in text:
            found += told if f" PID: {thread} " in text else []
            told = []
    return [*dict.fromkeys(found)][-_SHOWN:]
