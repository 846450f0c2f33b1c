"""What the tests call in a mount namespace of its own, which a container has; see world.call."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from . import inside, inside_facts
from .inside_boot import BOOT_ID

NEW_MOUNTS, BIND, REC, PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18  # linux/sched.h, linux/mount.h


def command_without(hidden: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the `hostdev` command where an empty file system lies over this path."""
    _hide(hidden)
    return inside.command(*words)


def command_with_file_over(place: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the `hostdev` command where a plain file stands over this one."""
    own = Path("/run/plain-file")
    own.touch()
    _unshare()
    _mount(str(own), place, None, BIND)
    return inside.command(*words)


def facts_without_a_sysfs(address: str) -> inside_facts.Answers:
    """What each fact about a hidden sysfs returned, and what is expected."""
    _hide("/sys")
    return inside_facts.run_facts(["HIDDEN_FACTS"], address)


def command_with_boot_id(boot_id: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the `hostdev` command where a file with this boot id lies over the kernel's, as some
    container runtimes have it.
    """
    own = Path("/run/own-boot-id")
    own.write_text(f"{boot_id}\n", encoding="ascii")
    _unshare()
    _mount(str(own), BOOT_ID, None, BIND)
    assert Path(BOOT_ID).read_text(encoding="ascii").strip() == boot_id
    return inside.command(*words)


def _hide(path: str) -> None:
    _unshare()
    _mount("none", path, "tmpfs", 0)
    assert os.listdir(path) == []


def _unshare() -> None:
    _call("unshare", NEW_MOUNTS)
    _mount("none", "/", None, REC | PRIVATE)


def _mount(what: str, where: str, kind: str | None, flags: int) -> None:
    _call("mount", what.encode(), where.encode(), kind and kind.encode(), flags, None)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")
