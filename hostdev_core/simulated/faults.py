"""Faults that a test asks for: a write fails, takes its time, hangs, crashes, or has no effect."""

import fcntl
import fnmatch
import json
import math
import os
import time
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from hostdev_core.errors import InputError
from hostdev_core.simulated.kernel.disk import APPEND, Disk, names, read, unlink
from hostdev_core.simulated.kernel.locks import is_locked, locked

POLL = 0.003  # seconds
# The number of exit(2) by architecture; on all others a crash cannot be simulated.
_EXITS = {"x86_64": 60, "aarch64": 93, "riscv64": 93, "ppc64le": 1, "s390x": 1}


class Fault(NamedTuple):
    """A fault of the next `times` writes to a path that matches `path` (fnmatch)."""

    path: str
    value: str | None = None
    errno: int | None = None
    delay: float | None = None
    hang: bool = False
    effect: bool = True
    times: int = 1
    crash: bool = False

    def matches(self, paths: Iterable[str], value: str) -> bool:
        """Tell whether the fault is for a write with one of these paths and this value."""
        if self.value is not None and self.value != value.rstrip("\n"):
            return False
        return any(fnmatch.fnmatchcase(path, self.path) for path in paths)


def vanish() -> NoReturn:
    """End this thread as the kernel ends one that faults in a system call: no Python code runs any more.

    By exit(2) itself, which ends one thread only; its number depends on the architecture.
    """
    number = _EXITS.get(os.uname().machine)
    if number is None:
        raise InputError(
            f"a crash cannot be simulated on {os.uname().machine}; it can on {[*_EXITS]}"
        )
    import ctypes  # here: nearly no simulated host crashes

    ctypes.CDLL(None).syscall(number, 0)
    raise AssertionError("exit(2) has returned")


class Faults:
    """The faults that wait for their write, and the log of all writes; shared by all processes."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._file = f"{disk.memory}/faults"
        self._lock = f"{disk.memory}/faults-lock"
        self._log = f"{disk.memory}/writes"
        self._released = f"{disk.memory}/released"
        self._hanging = f"{disk.memory}/hanging"
        self._crashed = f"{disk.memory}/crashed"

    def add(self, fault: Fault) -> None:
        """Add a fault after the others."""
        with locked(self._lock):
            self._save([*self._load(), fault])

    def take(self, paths: Iterable[str], value: str) -> Fault | None:
        """Use up one of the times of the first fault that matches; None when none does."""
        if not os.path.exists(self._file):  # no lock for the usual case
            return None
        candidates = tuple(paths)  # each fault looks at all of them
        with locked(self._lock):
            faults = self._load()
            for number, fault in enumerate(faults):
                if fault.matches(candidates, value):
                    left = [fault._replace(times=fault.times - 1)] if fault.times > 1 else []
                    self._save([*faults[:number], *left, *faults[number + 1 :]])
                    return fault
        return None

    def wait(self, fault: Fault, path: str, value: str, timeout: float = math.inf) -> bool:
        """Take the time of a fault; False when `timeout` seconds were not enough."""
        end = time.monotonic() + timeout
        if fault.delay:
            time.sleep(min(fault.delay, timeout))
        if fault.hang:
            self._hang(path, value, end)
        if fault.crash:  # recorded first: no code runs after vanish()
            self._disk.put(
                self._crashed, json.dumps([*self._crashed_locks(), *path.split("/"), value])
            )
            vanish()
        return time.monotonic() < end

    def wait_for_lock(self, path: str, value: str = "") -> None:
        """Hang at a device whose lock a crashed thread still holds; `release` ends that here."""
        if self._is_crashed(path, value):
            self._hang(path, value, math.inf)

    def _is_crashed(self, path: str, value: str) -> bool:
        parts = {*path.split("/"), value.rstrip("\n")}
        return any(":" in part and part in parts for part in self._crashed_locks())

    def _crashed_locks(self) -> list[str]:
        return [str(text) for text in json.loads(read(self._crashed) or "[]")]

    def release(self) -> None:
        """Let all writes that hang now go on."""
        self._disk.put(self._released, os.urandom(16).hex())
        for name in names(self._hanging):
            if not is_locked(f"{self._hanging}/{name}"):  # its process was killed
                unlink(f"{self._hanging}/{name}")

    def hanging(self) -> list[tuple[str, str]]:
        """List path and value of the writes that hang now.

        Those that wait for a crashed thread's lock count also when their process was killed: on a real
        host such a process cannot be killed.
        """
        found: list[tuple[str, str]] = []
        for name in names(self._hanging):
            text = read(f"{self._hanging}/{name}")
            if not text:
                continue
            path, value = json.loads(text)
            if is_locked(f"{self._hanging}/{name}") or self._is_crashed(path, value):
                found.append((path, value))
        return sorted(found)

    def wait_hanging(self, count: int, timeout: float) -> list[tuple[str, str]]:
        """Wait until this many writes hang and return them; TimeoutError when they do not."""
        end = time.monotonic() + timeout
        while len(found := self.hanging()) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} writes hang, waited for {count}")
            time.sleep(POLL)
        return found

    def log(self, path: str, value: str) -> None:
        """Add a write to the log."""
        fd = os.open(self._log, APPEND, 0o600)
        try:
            os.write(fd, json.dumps([path, value]).encode() + b"\n")
        finally:
            os.close(fd)

    def writes(self) -> list[tuple[str, str]]:
        """List path and value of all logged writes, in order."""
        # A last line without its end is one that another process is writing.
        whole, _, _ = (read(self._log) or "").rpartition("\n")
        writes = (json.loads(line) for line in whole.splitlines())
        return [(path, value) for path, value in writes]

    def clear_writes(self) -> None:
        """Forget the writes logged so far."""
        if os.path.exists(self._log):
            os.truncate(self._log, 0)

    def _hang(self, path: str, value: str, end: float) -> None:
        before = read(self._released)
        file = f"{self._hanging}/{os.urandom(16).hex()}"
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The lock ends with this process: hanging() does not list the write of a killed one.
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, json.dumps([path, value]).encode())
            while (
                read(self._released) == before and os.path.exists(file) and time.monotonic() < end
            ):
                time.sleep(POLL)
        finally:
            unlink(file)
            os.close(fd)

    def _load(self) -> list[Fault]:
        return [Fault(*fields) for fields in json.loads(read(self._file) or "[]")]

    def _save(self, faults: list[Fault]) -> None:
        if faults:
            self._disk.put(self._file, json.dumps(faults))
        else:
            unlink(self._file)
