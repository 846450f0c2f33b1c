"""Text files outside /sys, and the kernel's log: read in pieces, never waiting for a pipe in their place."""

import os
from collections.abc import Collection

# A sysctl refuses to be read in one piece of megabytes: proc_sys_call_handler allocates them.
_PIECE = 1 << 16
_MOST_MESSAGES = 1 << 16  # of the kernel's log, which has fewer
_SHOWN = 5


def fetch(path: str, size: int) -> bytes:
    """At most `size` bytes of a file; OSError when it cannot be read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    data = bytearray()
    try:
        while len(data) < size and (piece := os.read(fd, min(_PIECE, size - len(data)))):
            data += piece
    finally:
        os.close(fd)
    return bytes(data)


def read_log(path: str, words: Collection[str], since: float) -> list[str]:
    """The last messages with one of these words from `since` (time.monotonic()) on.

    Format: Documentation/ABI/testing/dev-kmsg. It is for messages: what cannot be read says nothing.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    lines: list[str] = []
    try:
        for _ in range(_MOST_MESSAGES):
            if not (data := os.read(fd, 8192)):
                break
            prefix, _, text = data.decode("utf-8", "replace").partition(";")
            if (
                any(word in text for word in words)
                and float(prefix.split(",")[2]) / 1e6 >= since - 0.01
            ):
                lines.append(text.splitlines()[0])
    except (OSError, ValueError, IndexError):
        pass  # the end of the log is EAGAIN
    finally:
        os.close(fd)
    return lines[-_SHOWN:]
