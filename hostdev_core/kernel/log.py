"""Read the kernel's log (Documentation/ABI/testing/dev-kmsg), and find the report of a crash in it.

Its times are of a clock that no process can read, and that differs from time.monotonic() by more the
longer a machine runs (a processor's clock is measured again after the boot: "Refined TSC clocksource
calibration"). They are not compared, therefore: later messages are those behind the present end, and a
crash is a thread's by the number in its report.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple, Self

from hostdev_core.kernel.processes import is_initial_namespace

# The lines of a report that name the crash: of x86, of arm64, and of a BUG_ON.
OOPS = ("BUG:", "kernel BUG at", "Oops:", "Unable to handle", "general protection fault")
_BEGINS = ("WARNING:", "BUG:", "kernel BUG at", "Unable to handle", "general protection fault")
_NAMED = re.compile(r"CPU: [0-9]+ (?:UID: [0-9]+ )?PID: ([0-9]+) Comm:")
_MOST_MESSAGES = 1 << 16  # there are fewer
_LONGEST = 1 << 16
_SHOWN = 5


class Message(NamedTuple):
    """A message's time, in seconds of the log's own clock, and its first line."""

    seconds: float
    text: str


class KernelLog:
    """The kernel's log since this was made, or since `mark` was called last.

    A context manager that closes it. Where the log cannot be read, it has no messages. Where a file is in
    its place (a simulated host's), later messages are told by their times.
    """

    def __init__(self, path: str | None = None) -> None:
        self._fd: int | None = None
        self._is_file = False
        self._since = 0.0
        with suppress(OSError):
            if path is not None:
                self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self.mark()

    def mark(self) -> None:
        """Leave out all messages up to now."""
        if self._is_file:
            self._since = time.monotonic()
        elif self._fd is not None:
            with suppress(OSError):
                os.lseek(self._fd, 0, os.SEEK_END)

    def lines(self, *words: str) -> list[str]:
        """Return the last messages with one of these words, at most five."""
        return [text for text in self._texts() if any(word in text for word in words)][-_SHOWN:]

    def oops(self, thread: int) -> list[str]:
        """Return the messages about the crash that ended this thread, at most five.

        The kernel names a thread by its number in the initial pid namespace. A process in another one
        does not know that number: there the messages are of any crash.
        """
        knows_number = self._is_file or _is_in_initial_namespace()
        return find_oops(self._texts(), thread if knows_number else None)

    def close(self) -> None:
        """Close the log; it has no messages from now on."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _texts(self) -> Iterator[str]:
        fd, since = self._fd, self._since - 0.01
        if fd is not None:
            messages = read_messages(lambda: os.read(fd, _LONGEST))
            yield from (message.text for message in messages if message.seconds >= since)


def _is_in_initial_namespace() -> bool:
    """Whether this process knows its threads by the kernel's own numbers; False when unknown."""
    with suppress(OSError):
        return is_initial_namespace()
    return False


def read_messages(read: Callable[[], bytes]) -> Iterator[Message]:
    """Read the messages left: each call of `read` returns one, or many of a file, up to EAGAIN.

    EPIPE tells that messages were overwritten before they were read; the next call returns later ones.
    """
    for _ in range(_MOST_MESSAGES):
        try:
            data = read()
        except OSError as error:
            if error.errno == errno.EPIPE:
                continue
            return
        if not data:
            return
        for line in data.decode("utf-8", "replace").split("\n"):
            prefix, _, text = line.partition(";")
            with suppress(
                ValueError, IndexError
            ):  # a line that goes on, with a message's properties
                yield Message(float(prefix.split(",")[2]) / 1e6, text)


def find_oops(texts: Iterable[str], thread: int | None) -> list[str]:
    """Find the messages about the crash that ended this thread, without those of other threads' reports.

    A report names its thread after the crash itself: "CPU: 0 PID: 252 Comm: python". Reports of two
    processors may be mixed: then each message that may be of this thread is returned. Where no report
    names the thread, the messages are those of reports that name none; without a thread, those of any.
    """
    found: list[str] = []
    told: list[str] = []
    begun = 0  # reports that have not named their thread yet
    for text in texts:
        begun += any(word in text for word in _BEGINS)
        if any(word in text for word in OOPS):
            told.append(text)
        elif thread is not None and (named := _NAMED.search(text)):
            found += told if int(named[1]) == thread else []
            begun -= 1
            if begun <= 0:
                told, begun = [], 0
    return [*dict.fromkeys(found or told)][-_SHOWN:]
