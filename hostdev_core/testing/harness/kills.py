"""Disturbances: a process is killed at the nth moment of a call, and others recover."""

import os
import signal
import time
from collections.abc import Callable

from hostdev_core import Connection
from hostdev_core.runtime import operation as operations
from hostdev_core.runtime.operation import (
    is_alive,  # bound here: a job's `setup` may replace it for hostdev
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.injection import Injector
from hostdev_core.testing.harness.trial import Action, Trial, answer_of

MOST_RECOVERERS = 1_000
PATIENCE = 60.0  # seconds


def kill(side: str) -> Callable[[Trial, int], int]:
    """Kill the "process" that makes the call, its "worker", or the "front" that waits for it."""

    def disturb(trial: Trial, moment: int) -> int:
        host = trial.fresh()
        died = die(trial, host, moment, trial.scenario.action, side)
        if not died:
            return 0
        trial.recover(host)
        trial.check(host, f"{side} killed {died} (moment {moment})")
        return 1

    return disturb


def kill_recoverers(trial: Trial, moment: int) -> int:
    """Kill the process, then each recoverer later than the last one; at the end two at once."""
    host = trial.fresh()
    died = die(trial, host, moment, trial.scenario.action)
    if not died:
        return 0
    for second in range(1, MOST_RECOVERERS):
        if not die(trial, host, second, Connection.recover):
            break
    else:
        raise AssertionError("the recovery never came through")
    trial.recover(host, 2)
    trial.check(host, f"killed {died} (moment {moment}), and its recoverers")
    return second


def die(
    trial: Trial, host: SimulatedHost, moment: int, action: Action, side: str = "process"
) -> str:
    """Let a child make a call and die at its nth moment; return that moment, "" when there is none."""

    def live(writer: int) -> None:
        front = os.getpid()

        def die_here(what: str) -> None:
            os.write(writer, what.encode())
            os.kill(front if side == "front" else os.getpid(), signal.SIGKILL)

        trial.call(host, action, Injector(die_here, {moment}), worker=side != "process")

    died = answer_of(live)
    _let_die(host)
    return died


def _let_die(host: SimulatedHost) -> None:
    """Wait until no operation is alive: a killed worker lets go of its pipe a moment before its locks."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(
        is_alive(host.state_dir, name) for name in operations.list_ids(host.state_dir)
    ):
        time.sleep(0.001)
