"""The kernel's log (Documentation/ABI/testing/dev-kmsg), and what it says of a crash.

Its times are of another clock than any that a process can read: that one is set by nobody, and is
apart from time.monotonic() by more the longer a machine runs. They tell little; the thread that a
crash ended is named in it.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

# Of x86, of arm64, and of a BUG_ON: the lines of a report that say what happened.
OOPS = ("BUG:", "kernel BUG at", "Oops:", "Unable to handle", "general protection fault")
_MOST_MESSAGES = 1 << 16  # there are fewer
_SHOWN = 5


class Message(NamedTuple):
    """A message's time, in seconds of the log's own clock, and its first line."""

    seconds: float
    text: str


def read_log(path: str) -> Iterator[Message]:
    """All messages that are there now; none where they cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for _ in range(_MOST_MESSAGES):
            if not (data := os.read(fd, 8192)):
                break
            prefix, _, text = data.decode("utf-8", "replace").partition(";")
            yield Message(float(prefix.split(",")[2]) / 1e6, text.partition("\n")[0])
    except (OSError, ValueError, IndexError):
        pass  # the end of the log is EAGAIN
    finally:
        os.close(fd)


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
