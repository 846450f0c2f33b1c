"""Disturbances: the kernel, modprobe or xenstored refuse a change, only pretend it, or another driver wins.

A device that is not undone must be stuck with the reason; once no fault happens any more, a recovery must
put it right.
"""

import os
from collections.abc import Callable, Container
from itertools import count, cycle

from hostdev_core import Connection
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.injection import FromThenOn, Injector
from hostdev_core.testing.harness.kills import die
from hostdev_core.testing.harness.trial import Trial
from hostdev_core.testing.harness.world import is_stuck, world

CHANGES = ("before write ", "before load ", "before xenstore ")
ROGUE = "rogue"
WriteFault = Callable[[SimulatedHost, str], None]  # what becomes of the change that it is told


def refuse_in_turn(*errnos: int) -> Callable[[], WriteFault]:
    """Answer with one errno for all changes of a call; for the next call with the next errno."""
    numbers = cycle(errnos)
    return lambda: refuse(next(numbers))


def refuse(*errnos: int) -> WriteFault:
    """Answer with an errno; with one after the other, where there are several."""
    numbers = count()

    def answer(host: SimulatedHost, what: str) -> None:
        del host, what
        number = errnos[next(numbers) % len(errnos)]
        raise OSError(number, os.strerror(number))

    return answer


def pretend(host: SimulatedHost, what: str) -> None:
    """Let the write succeed without effect."""
    _, kind, path = what.split(" ", 2)
    if kind != "xenstore":
        host.on_write("modprobe" if kind == "load" else path, effect=False)


def intrude(host: SimulatedHost, what: str) -> None:
    """Let another driver win the race for the device that is about to be bound.

    Do nothing while several devices might be meant: other lanes go on meanwhile.
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
    """Unbind the other driver from each device that it took."""
    for name in _of_rogue(host):
        host.sysfs.write(f"bus/pci/drivers/{ROGUE}/unbind", name)


def _of_rogue(host: SimulatedHost) -> list[str]:
    return [n for n, state in host.snapshot().items() if state.get("kernel_driver") == ROGUE]


def _injector(host: SimulatedHost, fault: WriteFault, numbers: Container[int]) -> Injector:
    own = SimulatedHost.open(host.root)  # not watched: the fault's own changes are no moments
    return Injector(lambda what: fault(own, what), numbers, CHANGES)


def fail(make: Callable[[], WriteFault], *, on: bool = False) -> Callable[[Trial, int], int]:
    """Let the fault happen at the nth change of the call; with `on` at all later ones too, the undo's."""

    def disturb(trial: Trial, moment: int) -> int:
        host = trial.fresh()
        injector = _injector(host, make(), FromThenOn(moment) if on else {moment})
        error = trial.outcome(host, trial.scenario.action, injector)
        if not injector.met:
            return 0
        what = f"fault at {injector.met[0]} (change {moment})"
        trial.check_told(host, what)
        if error is None:
            trial.check(host, f"{what}, without a word", trial.after)
        elif not on and not trial.scenario.goes_on and not _of_rogue(host):
            trial.check(host, f"{what}, not undone", trial.before)
        _settle(trial, host, what)
        return 1

    return disturb


def fail_twice(make: Callable[[], WriteFault]) -> Callable[[Trial, int], int]:
    """Let the fault happen at the nth change and at a later one: each later one in turn."""

    def disturb(trial: Trial, moment: int) -> int:
        for second in count(moment + 1):
            host = trial.fresh()
            injector = _injector(host, make(), {moment, second})
            trial.outcome(host, trial.scenario.action, injector)
            if not injector.met:
                return 0
            what = f"faults at {' and '.join(injector.met)} (changes {moment}, {second})"
            trial.check_told(host, what)
            _settle(trial, host, what)
            if len(injector.met) == 1:
                return second - moment
        raise AssertionError("the numbers do not end")

    return disturb


def fail_in_recovery(make: Callable[[], WriteFault]) -> Callable[[Trial, int], int]:
    """Kill the process at the nth moment; let the fault happen at each change of the recovery, in turn."""

    def disturb(trial: Trial, moment: int) -> int:
        for change in count(1):
            host = trial.fresh()
            died = die(trial, host, moment, trial.scenario.action)
            if not died:
                return 0
            injector = _injector(host, make(), {change})
            trial.outcome(host, Connection.recover, injector)
            if not injector.met:
                trial.check(host, f"killed {died}")
                return change
            what = f"killed {died}, then fault at {injector.met[0]} (change {change})"
            trial.check_told(host, what)
            _settle(trial, host, what)
        raise AssertionError("the numbers do not end")

    return disturb


def _settle(trial: Trial, host: SimulatedHost, what: str) -> None:
    """Recover while another driver has a device, which must keep it, and once more when it has let go."""
    for name in _of_rogue(host):
        if not is_stuck(world(host), name):
            trial.lose(what, f"{name} is on another driver and nobody says so")
        trial.recover(host)
        if name not in _of_rogue(host):
            trial.lose(what, f"{name} was taken away from another driver")
    leave(host)
    trial.recover(host)
    trial.check(host, what)
