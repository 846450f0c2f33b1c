"""Disturbances: somebody is killed at the nth moment of a call, and others recover."""

import os
import signal
import time
from collections.abc import Callable
from itertools import count

from hostdev_core import Connection
from hostdev_core.runtime import operation as operations
from hostdev_core.runtime.operation import is_alive  # as it is, whatever is taken away later
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.arena import Action, Arena, answer_of

MOST_RECOVERERS = 1_000
PATIENCE = 60.0  # seconds


def killed(side: str) -> Callable[[Arena, int], int]:
    """Kill the "process" that makes the call, its "worker", or the "front" that waits for it."""

    def meet(arena: Arena, moment: int) -> int:
        host = arena.fresh()
        died = die(arena, host, moment, arena.scenario.action, side)
        if not died:
            return 0
        arena.recover(host)
        arena.check(host, f"{side} killed {died} (moment {moment})")
        return 1

    return meet


def recoverers_killed(arena: Arena, moment: int) -> int:
    """Kill the process, then each recoverer later than the last one; at the end two at once."""
    host = arena.fresh()
    died = die(arena, host, moment, arena.scenario.action)
    if not died:
        return 0
    for second in range(1, MOST_RECOVERERS):
        if not die(arena, host, second, Connection.recover):
            break
    else:
        raise AssertionError("the recovery never came through")
    arena.recover(host, 2)
    arena.check(host, f"killed {died} (moment {moment}), and its recoverers")
    return second


def die(
    arena: Arena, host: SimulatedHost, moment: int, action: Action, side: str = "process"
) -> str:
    """Let a child make a call and die at its nth moment: which it was; "" when there is none."""

    def live(writer: int) -> None:
        me, moments = os.getpid(), count(1)

        def watcher(what: str) -> None:
            if next(moments) == moment:
                os.write(writer, what.encode())
                os.kill(me if side == "front" else os.getpid(), signal.SIGKILL)

        arena.call(host, action, watcher, worker=side != "process")

    died = answer_of(live)
    _let_die(host)
    return died


def _let_die(host: SimulatedHost) -> None:
    """A worker that was killed lets go of its pipe a moment before its locks."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(
        is_alive(host.state_dir, name) for name in operations.list_ids(host.state_dir)
    ):
        time.sleep(0.001)
