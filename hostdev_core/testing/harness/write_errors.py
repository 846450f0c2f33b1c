"""Disturbances: changes that the kernel, modprobe or xenstored refuse, only pretend, or lose to others.

What is not undone must be stuck with the reason; once the trouble is over, a recovery puts it right.
"""

import os
from collections.abc import Callable, Container
from itertools import count, cycle

from hostdev_core import Connection
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.arena import Arena, is_stuck, world
from hostdev_core.testing.harness.kills import die

CHANGES = ("before write ", "before load ", "before xenstore ")
ROGUE = "rogue"
Strike = Callable[[SimulatedHost, str], None]


class FromThenOn(Container[int]):
    """Every number from the first one on."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= self._first


class Striker:
    """A watcher that strikes at the changes of these numbers, and remembers which they were."""

    def __init__(self, host: SimulatedHost, strike: Strike, numbers: Container[int]) -> None:
        self.struck: list[str] = []
        self._host = SimulatedHost.open(host.root)  # its own changes are nobody's moments
        self._strike = strike
        self._wanted = numbers
        self._numbers = count(1)

    def __call__(self, what: str) -> None:
        if what.startswith(CHANGES) and next(self._numbers) in self._wanted:
            self.struck.append(what)
            self._strike(self._host, what)


def refuse_in_turn(*errnos: int) -> Callable[[], Strike]:
    """Each strike answers with the next errno."""
    numbers = cycle(errnos)
    return lambda: refuse(next(numbers))


def refuse(*errnos: int) -> Strike:
    """Answer with an errno; with one after the other, where there are several."""
    numbers = count()

    def strike(host: SimulatedHost, what: str) -> None:
        del host, what
        number = errnos[next(numbers) % len(errnos)]
        raise OSError(number, os.strerror(number))

    return strike


def pretend(host: SimulatedHost, what: str) -> None:
    """The write succeeds and has no effect."""
    _, kind, path = what.split(" ", 2)
    if kind != "xenstore":
        host.on_write("modprobe" if kind == "load" else path, effect=False)


def intrude(host: SimulatedHost, what: str) -> None:
    """Another driver wins the race for the device that is about to be bound.

    Not while several might be meant: those of other lanes do not stand still.
    """
    driver = what.removesuffix("/bind").rpartition("/")[2]
    waiting = [
        name
        for name, state in host.snapshot().items()
        if state.get("kernel_driver", driver) is None and state["driver_override"] == driver
    ]
    if what.endswith("/bind") and len(waiting) == 1:
        host.add_driver(ROGUE)
        override = f"bus/pci/devices/{waiting[0]}/driver_override"
        host.sysfs.write(override, f"{ROGUE}\n")
        host.sysfs.write(f"bus/pci/drivers/{ROGUE}/bind", waiting[0])
        host.sysfs.write(override, f"{driver}\n")


def leave(host: SimulatedHost) -> None:
    """The other driver lets go of what it took."""
    for name in _of_rogue(host):
        host.sysfs.write(f"bus/pci/drivers/{ROGUE}/unbind", name)


def _of_rogue(host: SimulatedHost) -> list[str]:
    return [n for n, state in host.snapshot().items() if state.get("kernel_driver") == ROGUE]


def failing(make: Callable[[], Strike], *, on: bool = False) -> Callable[[Arena, int], int]:
    """The nth change of the call meets a strike; with `on` all later ones, the undo's too."""

    def meet(arena: Arena, moment: int) -> int:
        host = arena.fresh()
        striker = Striker(host, make(), FromThenOn(moment) if on else {moment})
        error = arena.outcome(host, arena.scenario.action, striker)
        if not striker.struck:
            return 0
        what = f"struck {striker.struck[0]} (change {moment})"
        arena.check_told(host, what)
        if error is None:
            arena.check(host, f"{what}, without a word", arena.after)
        elif not on and not arena.scenario.goes_on and not _of_rogue(host):
            arena.check(host, f"{what}, not undone", arena.before)
        _settle(arena, host, what)
        return 1

    return meet


def failing_twice(make: Callable[[], Strike]) -> Callable[[Arena, int], int]:
    """The nth change meets a strike, and one later one: each of them in turn."""

    def meet(arena: Arena, moment: int) -> int:
        for second in count(moment + 1):
            host = arena.fresh()
            striker = Striker(host, make(), {moment, second})
            arena.outcome(host, arena.scenario.action, striker)
            if not striker.struck:
                return 0
            what = f"struck {' and '.join(striker.struck)} (changes {moment}, {second})"
            arena.check_told(host, what)
            _settle(arena, host, what)
            if len(striker.struck) == 1:
                return second - moment
        raise AssertionError("numbers do not end")

    return meet


def failing_in_recovery(make: Callable[[], Strike]) -> Callable[[Arena, int], int]:
    """The process is killed at the nth moment; every change of the recovery meets a strike, in turn."""

    def meet(arena: Arena, moment: int) -> int:
        for change in count(1):
            host = arena.fresh()
            died = die(arena, host, moment, arena.scenario.action)
            if not died:
                return 0
            striker = Striker(host, make(), {change})
            arena.outcome(host, Connection.recover, striker)
            if not striker.struck:
                arena.check(host, f"killed {died}")
                return change
            what = f"killed {died}, then struck {striker.struck[0]} (change {change})"
            arena.check_told(host, what)
            _settle(arena, host, what)
        raise AssertionError("numbers do not end")

    return meet


def _settle(arena: Arena, host: SimulatedHost, what: str) -> None:
    """What another driver has is left alone; when it is gone, a recovery puts everything right."""
    for name in _of_rogue(host):
        if not is_stuck(world(host), name):
            arena.lose(what, f"{name} is on another driver and nobody says so")
        arena.recover(host)
        if name not in _of_rogue(host):
            arena.lose(what, f"{name} was taken away from another driver")
    leave(host)
    arena.recover(host)
    arena.check(host, what)
