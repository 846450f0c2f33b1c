"""Disturbances: a signal arrives at the nth moment; the call is undone, or had come through before."""

import logging
import os
import signal
import time
from collections.abc import Callable
from itertools import count

from hostdev_core.cli.failures import UNPRINTED, exit_code
from hostdev_core.cli.session import signals_raise
from hostdev_core.runtime.signals import Delay
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.arena import Arena, Watcher, answer_of

PATIENCE = 60.0  # seconds
Signalled = Callable[[SimulatedHost, int], Watcher]


def command_stopped(number: signal.Signals) -> Callable[[Arena, int], int]:
    """The waiting command is told to stop; its worker undoes; the exit code is 128 + the signal's."""

    def meet(arena: Arena, moment: int) -> int:
        host = arena.fresh()

        def run(writer: int) -> None:
            front, moments = os.getpid(), count(1)

            def watcher(what: str) -> None:
                if next(moments) == moment:
                    os.write(writer, b"struck ")
                    os.kill(front, number)
                    _wait_until(_is_told)

            os.write(writer, f"ended {_code(arena, host, watcher)} ".encode())

        return _judge(
            arena, host, answer_of(run), f"{number.name} at moment {moment}", 128 + number
        )

    return meet


def command_stopped_twice(arena: Arena, moment: int) -> int:
    """A second signal, while the worker undoes, lets the command go at once; the undo goes on."""
    host = arena.fresh()

    def run(writer: int) -> None:
        front, moments, told = os.getpid(), count(1), count(1)

        def watcher(what: str) -> None:
            if _is_stopped():
                if next(told) == 1:
                    os.kill(front, signal.SIGINT)
                    if not _wait_until(lambda: os.getppid() != front):
                        os.write(writer, b"stayed ")
            elif next(moments) == moment:
                os.write(writer, b"struck ")
                os.kill(front, signal.SIGINT)
                _wait_until(_is_told)

        os.write(writer, f"ended {_code(arena, host, watcher)} ".encode())

    said = answer_of(run)
    if "stayed" in said:
        arena.lose(f"two signals at moment {moment}", "the command did not return")
    return _judge(arena, host, said, f"two signals at moment {moment}", 128 + signal.SIGINT)


def call_interrupted(arena: Arena, moment: int) -> int:
    """KeyboardInterrupt in the thread that makes the call, without a worker."""
    host = arena.fresh()

    def run(writer: int) -> None:
        moments, arrived = count(1), False

        def interrupt(number: int, frame: object) -> None:
            nonlocal arrived
            arrived = True
            raise KeyboardInterrupt

        def watcher(what: str) -> None:
            if next(moments) == moment:
                os.write(writer, b"struck ")
                os.kill(os.getpid(), signal.SIGINT)
                _wait_until(lambda: arrived or _waits(signal.SIGINT))

        signal.signal(signal.SIGINT, interrupt)
        try:
            arena.call(host, arena.scenario.action, watcher)
            os.write(writer, b"ended 0 ")
        except KeyboardInterrupt:
            os.write(writer, f"ended {128 + signal.SIGINT} ".encode())

    said = answer_of(run)
    return _judge(arena, host, said, f"interrupted at moment {moment}", 128 + signal.SIGINT)


def _code(arena: Arena, host: SimulatedHost, watcher: Watcher) -> int:
    """The exit code of a command that makes the scenario's call, and hears of every step."""
    logging.basicConfig(handlers=[logging.NullHandler()], level=logging.DEBUG)
    try:
        with signals_raise():
            arena.call(host, arena.scenario.action, watcher, worker=True)
    except BaseException as error:
        return exit_code(error)
    return 0


def _judge(arena: Arena, host: SimulatedHost, said: str, what: str, stopped: int) -> int:
    """Without any recovery: undone, or done. A way home is finished, whoever asks it to stop.

    A command that is stopped when all is done but its answer says that.
    """
    if "struck" not in said:
        return 0
    code = said.partition("ended ")[2].split(" ")[0]
    undone = (arena.before, arena.after) if arena.scenario.goes_on else (arena.before,)
    wanted = {"0": (arena.after,), str(UNPRINTED): (arena.after,), str(stopped): undone}.get(code)
    if wanted is None:
        arena.lose(what, f"it ended with {code or 'nothing'}, wanted 0 or {stopped}")
    else:
        arena.check(host, f"{what}, ended with {code}", *wanted)
    return 1


def _is_stopped() -> bool:
    """Whether this worker was told to stop: it ignores to be told again."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def _is_told() -> bool:
    """Whether this worker was told to stop, although it may not do so before a block has ended."""
    return _is_stopped() or _waits(signal.SIGTERM)


def _waits(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    return isinstance(handler, Delay) and number in handler.came


def _wait_until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.0005)
    return True
