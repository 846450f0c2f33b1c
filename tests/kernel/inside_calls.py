"""Lend and return devices once more, between looks at paths that a trace of system calls finds.

`strace -f -y -o FILE python -m tests.kernel.inside_calls CARD...` makes the trace that `count` reads.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable

from hostdev_core import Domain, open_connection

from . import inside

MARK = "/mark of a trace/"
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_SEARCH = re.compile(r"/proc/(?:\d+|self/task)?[/\"]?")


def mark(name: str) -> None:
    """Leave a line in the trace."""
    os.path.exists(f"{MARK}{name}")


def trip(cards: list[str]) -> None:
    """Two trips: modules are loaded and imported in the first, and the second is marked."""
    with open_connection(inside.QEMU) as conn:
        for name in ("first", "second"):
            mark(f"{name} prepare")
            conn.prepare_hostdevs(Domain("vm1", cards))
            mark(f"{name} reattach")
            conn.reattach_hostdevs("vm1")
            mark(f"{name} end")


def count(lines: Iterable[str]) -> dict[str, Counter[str]]:
    """The system calls of each part between two marks: futex and looks below /proc by names of their own."""
    parts: dict[str, Counter[str]] = {}
    now: Counter[str] = Counter()
    for line in lines:
        if MARK in line:
            now = parts[line.partition(MARK)[2].partition('"')[0]] = Counter()
        elif found := _CALL.match(line):  # not "... resumed", which began before, and no signal
            name, arguments = found.groups()
            now["/proc" if _SEARCH.search(arguments) else name] += 1
    return parts


if __name__ == "__main__":
    trip(sys.argv[1:])
