"""What the tests of several, and of killed, processes call in the guest: see world.call."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from hostdev_core import Domain, Host, HostdevError, Registry, hookimpl, open_connection
from hostdev_core.sysfs import Sysfs

from .inside import QEMU, State, prepare, reattach, reattach_unguarded, records, recover, state


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked process that ends with it; its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def race(address: str, rounds: int) -> list[list[str]]:
    """Two processes prepare a device at once; what each got, by round: "lent" or an error's name."""
    return [_race_once(address) for _ in range(rounds)]


def _race_once(address: str) -> list[str]:
    start, answers = os.pipe(), os.pipe()

    def run(name: str) -> None:
        os.close(start[1])
        with open_connection(QEMU) as conn:
            os.read(start[0], 1)  # returns when the parent closes the other end
            try:
                conn.prepare_hostdevs(Domain(name, [address]))
                outcome = "lent"
            except HostdevError as error:
                outcome = type(error).__name__
        os.write(answers[1], f"{name}={outcome}\n".encode())

    names = ("left", "right")
    pids = [in_child(lambda name=name: run(name)) for name in names]  # type: ignore[misc]
    for fd in (start[1], answers[1]):
        os.close(fd)
    for pid in pids:
        os.waitpid(pid, 0)
    got = dict(line.split("=") for line in os.read(answers[0], 4096).decode().split())
    for fd in (start[0], answers[0]):
        os.close(fd)
    for name in names:
        if got[name] == "lent":
            reattach(name, uri=QEMU)
    return sorted(got.values())


# Processes that are killed.


class DyingSysfs(Sysfs):
    """A sysfs whose process is killed directly after its nth write."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes

    def write(self, path: str, value: str) -> None:
        super().write(path, value)
        self._left -= 1
        if self._left == 0:
            die()


def die() -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingBefore:
    """A plugin whose process is killed before the kernel is written to."""

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        die()


class DyingAfter:
    """A plugin whose process is killed when all devices are bound."""

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        die()


class Death(NamedTuple):
    """What a killed process left, and what it was after the recovery by another one."""

    signal: int
    phase: str | None
    left: State
    recovered: State
    records: list[str]


def deaths(name: str, address: str, *, uri: str | None = None) -> dict[str, Death]:
    """Lend a device, and give it back, with SIGKILL at every moment of it; recover each time."""

    def lend(plugin: object = None, writes: int = 0) -> None:
        registry, host = Registry.from_entry_points(), Host()
        if plugin is not None:
            registry.register(plugin)
        host.sysfs = DyingSysfs(writes)
        with open_connection(uri, host=host, registry=registry) as conn:
            conn.prepare_hostdevs(Domain(name, [address]))

    def give_back(writes: int) -> None:
        host = Host()
        prepare(name, [address], uri=uri)
        host.sysfs = DyingSysfs(writes)
        with open_connection(uri, host=host) as conn:
            conn.reattach_hostdevs(name)

    moments: dict[str, Callable[[], None]] = {
        "before the first write": lambda: lend(DyingBefore()),
        "after all writes": lambda: lend(DyingAfter()),
    }
    for count in (1, 2, 3):
        moments[f"prepare, write {count}"] = lambda count=count: lend(writes=count)  # type: ignore[misc]
    for count in (1, 2, 3, 4):
        moments[f"reattach, write {count}"] = lambda count=count: give_back(count)  # type: ignore[misc]
    return {moment: _die_and_recover(address, work) for moment, work in moments.items()}


def leave_half_way(name: str, address: str) -> None:
    """Be killed while a device is bound to nobody."""

    def lend() -> None:
        host = Host()
        host.sysfs = DyingSysfs(2)
        with open_connection(QEMU, host=host) as conn:
            conn.prepare_hostdevs(Domain(name, [address]))

    os.waitpid(in_child(lend), 0)


class Interrupting:
    """A plugin during whose hook a person presses Ctrl-C."""

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def interrupted(name: str, address: str) -> str:
    """Lend a device, with Ctrl-C when it is bound; what was raised."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    registry = Registry.from_entry_points()
    registry.register(Interrupting())
    try:
        with open_connection(QEMU, registry=registry) as conn:
            conn.prepare_hostdevs(Domain(name, [address]))
    except BaseException as error:
        return type(error).__name__
    return "nothing"


def _die_and_recover(address: str, work: Callable[[], None]) -> Death:
    _, status = os.waitpid(in_child(work), 0)
    record, left = records().get(address), state(address)
    os.waitpid(in_child(recover), 0)
    phase = str(record.phase) if record else None
    return Death(os.WTERMSIG(status), phase, left, state(address), sorted(records()))


def kill_the_caller(name: str, address: str) -> int:
    """Kill a process that waits for its worker to give a device back; the signal that it ended with."""
    caller = in_child(lambda: reattach_unguarded(name, 300.0))
    while Sysfs().link(f"bus/pci/devices/{address}/driver") is not None:
        time.sleep(0.05)
    os.kill(caller, signal.SIGKILL)
    _, status = os.waitpid(caller, 0)
    return os.WTERMSIG(status)
