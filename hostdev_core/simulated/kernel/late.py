"""Nodes and interfaces that come late: a slow udev, or a driver that goes on after its probe."""

import fnmatch
import os
import time
from collections.abc import Callable
from typing import cast

from hostdev_core.simulated.kernel.disk import Disk, link, make
from hostdev_core.simulated.kernel.locks import locked

_MEMORY = "late"
Make = Callable[[], None]


def add(disk: Disk, path_glob: str, seconds: float, count: int) -> None:
    """Let the next `count` that match come so much later."""
    with locked(f"{disk.memory}/late-lock"):
        rules, waiting = _load(disk)
        _save(disk, [*rules, [path_glob, seconds, count]], waiting)


def make_node(disk: Disk, path: str, mode: int) -> None:
    """Make a node (an absolute path below the machine's /dev) now, or when its time has come."""
    _make(disk, path.removeprefix(f"{disk.root}/dev/"), [path, "", mode])


def link_interface(disk: Disk, name: str, target: str, path: str) -> None:
    """Let a network interface be known under its class now, or when its time has come."""
    _make(disk, f"net/{name}", [path, target, 0])


def drop(disk: Disk, path: str) -> None:
    """What was to come there does not come any more."""
    if os.path.exists(f"{disk.memory}/{_MEMORY}"):
        with locked(f"{disk.memory}/late-lock"):
            rules, waiting = _load(disk)
            _save(disk, rules, [each for each in waiting if each[1] != path])


def settle(disk: Disk) -> None:
    """Make what is due."""
    if not os.path.exists(f"{disk.memory}/{_MEMORY}"):
        return
    with locked(f"{disk.memory}/late-lock"):
        rules, waiting = _load(disk)
        due = [each for each in waiting if cast("float", each[0]) <= time.time()]
        for each in due:
            _appear(each[1:])
        if due:
            _save(disk, rules, [each for each in waiting if each not in due])


def _make(disk: Disk, name: str, row: list[object]) -> None:
    if os.path.exists(f"{disk.memory}/{_MEMORY}"):
        with locked(f"{disk.memory}/late-lock"):
            rules, waiting = _load(disk)
            for rule in rules:
                glob, seconds, count = cast("tuple[str, float, int]", rule)
                if count > 0 and fnmatch.fnmatchcase(name, glob):
                    rule[2] = count - 1
                    _save(disk, rules, [*waiting, [time.time() + seconds, *row]])
                    return
    _appear(row)


def _appear(row: list[object]) -> None:
    path, target, mode = cast("tuple[str, str, int]", row)
    if not os.path.lexists(path):
        if target:
            link(target, path)
        else:
            make(path, "", mode)


def _load(disk: Disk) -> tuple[list[list[object]], list[list[object]]]:
    memory = disk.recall(_MEMORY)
    rows = [cast("list[list[object]]", memory.get(name) or []) for name in ("rules", "waiting")]
    return rows[0], rows[1]


def _save(disk: Disk, rules: list[list[object]], waiting: list[list[object]]) -> None:
    disk.remember(_MEMORY, {"rules": rules, "waiting": waiting})
