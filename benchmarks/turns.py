"""Things that are timed take turns, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Work = Callable[[], object]
T = TypeVar("T")
SLOW = 20.0
"""Seconds."""
ROOM = 2 << 30
"""Bytes; a host of 10,000 devices takes half of it."""


# A process starts with the peak of the one that starts it: this is a small one.
PEAK = """
import os, sys
null = os.open(os.devnull, os.O_RDWR)
actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Run(NamedTuple):
    """What one run of a command took: seconds, and seconds of CPU."""

    wall: float
    cpu: float


def in_memory() -> tempfile.TemporaryDirectory[str]:
    """A directory for simulated hosts, in memory where there is room: no sysfs and no /run is on a disk."""
    return tempfile.TemporaryDirectory(prefix="hostdev-benchmark-", dir=memory())


def memory() -> str | None:
    """Where files are in memory, with room for all that is measured; None where that is nowhere."""
    place = "/dev/shm"
    if not os.path.ismount(place) or not os.access(place, os.W_OK):
        return None
    room = os.statvfs(place)
    return place if room.f_bavail * room.f_frsize >= ROOM else None


def timed(work: Work) -> float:
    """The seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(
    words: Sequence[str], env: Mapping[str, str] | None = None, *, codes: Sequence[int] = (0,)
) -> Run:
    """Run a command and wait for its end; CalledProcessError with its output for another exit code.

    Its CPU time is its own and that of its children for which it waited.
    """
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **(env or {})},
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in codes:
            said.seek(0)
            raise subprocess.CalledProcessError(child.returncode, words, said.read())
    return Run(wall, usage.ru_utime + usage.ru_stime)


def peak(words: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Run a command and answer its greatest memory, in MB; CalledProcessError when it fails."""
    launcher = [sys.executable, "-I", "-S", "-c", PEAK, *words]
    done = subprocess.run(
        launcher, check=True, capture_output=True, env={**os.environ, **(env or {})}
    )
    return int(done.stdout) / 1024


def turns(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let them take turns, each round beginning with another; what each answers, by its name.

    Each is called once before, unrecorded: that loads modules and fills caches. One that takes longer than
    SLOW has a single turn.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    slow = {name for name, work in works.items() if timed(work) > SLOW}
    for number in range(rounds):
        for name in rotated([*works], number):
            if number == 0 or name not in slow:
                found[name].append(works[name]())
    return found


def rotated(things: Sequence[T], by: int) -> list[T]:
    """The same things, beginning with another one."""
    start = by % len(things) if things else 0
    return [*things[start:], *things[:start]]


def say(text: str) -> None:
    """Tell whoever waits what is being measured."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.output or b"").decode(errors="replace").strip().splitlines()
        return f"exit {error.returncode}: {lines[-1] if lines else ''}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
