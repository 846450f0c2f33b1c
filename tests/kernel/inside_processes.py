"""What the tests of several, and of killed, processes call in the guest: see world.call."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from hostdev_core import Deadlines, Domain, Host, HostdevError, Registry, hookimpl, open_connection
from hostdev_core.kernel.processes import Identity
from hostdev_core.kernel.sysfs import Sysfs

from .inside import QEMU, reattach


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


# A kernel that does not return.


class Unguarded(Host):
    """A machine whose holder guard is slipped past: each group's node opens, whoever has it."""

    def open_node(self, path: str) -> int:
        del path
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def is_node(self, known: Identity, number: str | None) -> bool:
        del known, number
        return True


def reattach_unguarded(name: str, seconds: float) -> tuple[str, ...]:
    """Give devices back although a process holds them; the kernel has so long for the unbind."""
    host = Unguarded(deadlines=Deadlines(unbind=seconds))
    with open_connection(QEMU, host=host, worker=True) as conn:
        return conn.reattach_hostdevs(name)


# Processes that are killed.


def die(victim: int | None = None) -> None:
    """Kill a process, this one without another one named."""
    os.kill(os.getpid() if victim is None else victim, signal.SIGKILL)


def leave_half_way(name: str, address: str) -> None:
    """Be killed while a device is bound to nobody."""

    def lend() -> None:
        host = Host()
        host.watch(lambda what: die() if what.startswith("after") and "unbind" in what else None)
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


def kill_the_caller(name: str, address: str) -> int:
    """Kill a process that waits for its worker to give a device back; the signal that it ended with."""
    caller = in_child(lambda: reattach_unguarded(name, 300.0))
    while Sysfs().link(f"bus/pci/devices/{address}/driver") is not None:
        time.sleep(0.05)
    os.kill(caller, signal.SIGKILL)
    _, status = os.waitpid(caller, 0)
    return os.WTERMSIG(status)


# A program of several threads.


class Slow(io.TextIOBase):
    """A stream whose lock somebody has nearly all the time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            time.sleep(0.05)
        return len(text)

    def flush(self) -> None:
        self.write("")


def lend_by_workers(address: str, times: int) -> list[tuple[str, ...]]:
    """Lend a device and take it back by workers, while other threads print and log all the time.

    What each call answered. A fork would have the locks of the streams and of logging taken for ever.
    """
    sys.stdout = stream = Slow()
    log, ended = logging.getLogger("program"), threading.Event()
    log.addHandler(logging.StreamHandler(stream))
    log.propagate = False

    def go_on(say: Callable[[str], object]) -> None:
        while not ended.is_set():
            say("something")

    threads = [threading.Thread(target=go_on, args=(say,)) for say in (print, log.warning)]
    answers: list[tuple[str, ...]] = []
    for thread in threads:
        thread.start()
    try:
        with open_connection(QEMU, worker=True) as conn:
            for _ in range(times):
                lent = conn.prepare_hostdevs(Domain("vm1", [address]))
                answers += [tuple(each.device.name for each in lent if each.device)]
                answers += [conn.reattach_hostdevs("vm1")]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    return answers


# What udev tells.


class Heard(NamedTuple):
    """What was there before somebody bound a device; whether the wait saw it, and which events there were."""

    before: bool
    waited: bool
    events: list[tuple[str, str]]


def hear_of(address: str, driver: str, path: str) -> Heard:
    """Wait for a node that is there once another process has bound a device to a driver."""
    host, before = Host(), os.path.exists(path)
    events = host.udev.events("pci")
    signal.alarm(120)  # events are waited for for ever
    pid = in_child(lambda: _bind_later(address, driver))
    waited = host.udev.wait_for(path, 60)
    heard: list[tuple[str, str]] = []
    while heard[-1:] != [("bind", address)]:
        event = next(events)
        heard.append((event.action, event.name))
    os.waitpid(pid, 0)
    signal.alarm(0)
    return Heard(before, waited, heard)


def settled_after(address: str, driver: str, subsystem: str) -> tuple[bool, list[str]]:
    """Wait for what a driver makes of a device that another process binds; what is there then."""
    host = Host()
    pid = in_child(lambda: _bind_later(address, driver))
    settled = host.udev.settle(address, 60, subsystem)
    names = host.sysfs.names(f"bus/pci/devices/{address}/{subsystem}")
    os.waitpid(pid, 0)
    return settled, names


def _bind_later(address: str, driver: str) -> None:
    time.sleep(0.5)
    sysfs, path = Sysfs(), f"bus/pci/devices/{address}"
    sysfs.write(f"{path}/driver/unbind", address)
    sysfs.write(f"{path}/driver_override", f"{driver}\n")
    sysfs.write(f"bus/pci/drivers/{driver}/bind", address)
    sysfs.write(f"{path}/driver_override", "\n")


def wait_for(path: str, seconds: float) -> bool:
    """Wait for a node that nobody makes, or that is there."""
    return Host().udev.wait_for(path, seconds)
