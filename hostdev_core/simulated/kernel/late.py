"""Nodes and interfaces that come late: a slow udev, or a driver that goes on after its probe."""

import fnmatch
import os
import time
from typing import cast

from hostdev_core.simulated.kernel.disk import Disk, link, make
from hostdev_core.simulated.kernel.locks import locked

_MEMORY = "late"


def add(disk: Disk, path_glob: str, seconds: float, count: int) -> None:
    """Let the next `count` nodes or interfaces that match appear so many seconds later."""
    with locked(f"{disk.memory}/late-lock"):
        rules, waiting = _load(disk)
        _save(disk, [*rules, [path_glob, seconds, count]], waiting)


def make_node(disk: Disk, path: str, mode: int) -> None:
    """Make a node (an absolute path below the machine's /dev) now, or later where a rule says so."""
    _make(disk, path.removeprefix(f"{disk.root}/dev/"), [path, "", mode])


def link_interface(disk: Disk, name: str, target: str, path: str) -> None:
    """Link a network interface under its class now, or later where a rule says so."""
    _make(disk, f"net/{name}", [path, target, 0])


def drop(disk: Disk, path: str) -> None:
    """Cancel a node or interface that is still to appear at this path."""
    if os.path.exists(f"{disk.memory}/{_MEMORY}"):
        with locked(f"{disk.memory}/late-lock"):
            rules, waiting = _load(disk)
            _save(disk, rules, [each for each in waiting if each[1] != path])


def settle(disk: Disk) -> None:
    """Make the nodes and interfaces whose time has come."""
    if not os.path.exists(f"{disk.memory}/{_MEMORY}"):
        return
    with locked(f"{disk.memory}/late-lock"):
        rules, waiting = _load(disk)
        due = [each for each in waiting if cast("float", each[0]) <= time.time()]
        for each in due:
            _appear(each[1:])
        if due:
            _save(disk, rules, [each for each in waiting if each not in due])


def _make(disk: Disk, name: str, fields: list[object]) -> None:
    if os.path.exists(f"{disk.memory}/{_MEMORY}"):
        with locked(f"{disk.memory}/late-lock"):
            rules, waiting = _load(disk)
            for rule in rules:
                glob, seconds, count = cast("tuple[str, float, int]", rule)
                if count > 0 and fnmatch.fnmatchcase(name, glob):
                    rule[2] = count - 1  # in place: `rules`, which is saved next, has it
                    _save(disk, rules, [*waiting, [time.time() + seconds, *fields]])
                    return
    _appear(fields)


def _appear(fields: list[object]) -> None:
    path, target, mode = cast("tuple[str, str, int]", fields)
    if not os.path.lexists(path):
        if target:
            link(target, path)
        else:
            make(path, "", mode)


def _load(disk: Disk) -> tuple[list[list[object]], list[list[object]]]:
    memory = disk.recall(_MEMORY)
    lists = [cast("list[list[object]]", memory.get(name) or []) for name in ("rules", "waiting")]
    return lists[0], lists[1]


def _save(disk: Disk, rules: list[list[object]], waiting: list[list[object]]) -> None:
    disk.remember(_MEMORY, {"rules": rules, "waiting": waiting})
