"""Which processes hold a device: who has its nodes open, from /proc/PID/fd."""

import os
from collections.abc import Iterable
from typing import NamedTuple


class Holder(NamedTuple):
    """A process that has a node of a device open."""

    pid: int
    command: str
    node: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid}, {self.node})"


def find_holders(paths: Iterable[str]) -> tuple[Holder, ...]:
    """The other processes that have one of these files open; what may not be read is passed over."""
    wanted = {os.path.realpath(path) for path in paths}
    if not wanted:
        return ()
    found: list[Holder] = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            found += (
                Holder(int(name), command_of(int(name)), node) for node in _opened(name) & wanted
            )
    return tuple(sorted(found))


def _opened(pid: str) -> set[str]:
    targets: set[str] = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                targets.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except OSError:
                continue
    except OSError:
        pass
    return targets


def command_of(pid: int) -> str:
    """The name of a process's program, safe to print; "?" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().rstrip("\n")
    except OSError:
        return "?"
    return "".join(c if c.isprintable() else "?" for c in name)
