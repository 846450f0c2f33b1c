"""Disturbances: a signal arrives at the nth moment; the call is undone, or had been done before."""

import logging
import os
import signal
import time
from collections.abc import Callable

from hostdev_core.cli.failures import UNPRINTED, exit_code
from hostdev_core.cli.stops import signals_raise
from hostdev_core.runtime.signals import DeferredSignals
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.injection import Fault, Injector, Watcher
from hostdev_core.testing.harness.trial import Trial, answer_of

PATIENCE = 60.0  # seconds


def stop_command(number: signal.Signals) -> Callable[[Trial, int], int]:
    """Tell the waiting command to stop: its worker undoes, the exit code is 128 + the signal's."""

    def disturb(trial: Trial, moment: int) -> int:
        host = trial.fresh()

        def run(writer: int) -> None:
            stop = _stopper(writer, os.getpid(), number)
            code = _code(trial, host, Injector(stop, {moment}))
            os.write(writer, f"ended {code} ".encode())

        return _judge(
            trial, host, answer_of(run), f"{number.name} at moment {moment}", 128 + number
        )

    return disturb


def stop_command_twice(trial: Trial, moment: int) -> int:
    """Send a second signal while the worker undoes: the command returns at once, the undo goes on."""
    host = trial.fresh()

    def run(writer: int) -> None:
        front = os.getpid()

        def stop_again(what: str) -> None:
            os.kill(front, signal.SIGINT)
            if not _wait_until(lambda: os.getppid() != front):
                os.write(writer, b"stayed ")

        once = Injector(_stopper(writer, front, signal.SIGINT), {moment})
        again = Injector(stop_again, {1})
        code = _code(trial, host, lambda what: again(what) if _is_stopped() else once(what))
        os.write(writer, f"ended {code} ".encode())

    said = answer_of(run)
    if "stayed" in said:
        trial.lose(f"two signals at moment {moment}", "the command did not return")
    return _judge(trial, host, said, f"two signals at moment {moment}", 128 + signal.SIGINT)


def interrupt_call(trial: Trial, moment: int) -> int:
    """Raise KeyboardInterrupt in the thread that makes the call, without a worker."""
    host = trial.fresh()

    def run(writer: int) -> None:
        arrived = False

        def interrupt(number: int, frame: object) -> None:
            nonlocal arrived
            arrived = True
            raise KeyboardInterrupt

        def send(what: str) -> None:
            os.write(writer, b"sent ")
            os.kill(os.getpid(), signal.SIGINT)
            _wait_until(lambda: arrived or _waits(signal.SIGINT))

        signal.signal(signal.SIGINT, interrupt)
        try:
            trial.call(host, trial.scenario.action, Injector(send, {moment}))
            os.write(writer, b"ended 0 ")
        except KeyboardInterrupt:
            os.write(writer, f"ended {128 + signal.SIGINT} ".encode())

    said = answer_of(run)
    return _judge(trial, host, said, f"interrupted at moment {moment}", 128 + signal.SIGINT)


def _stopper(writer: int, front: int, number: signal.Signals) -> Fault:
    """A fault in the worker: send the signal to the command, and go on when the command has told us."""

    def stop(what: str) -> None:
        os.write(writer, b"sent ")
        os.kill(front, number)
        _wait_until(_is_told)

    return stop


def _code(trial: Trial, host: SimulatedHost, watcher: Watcher) -> int:
    """Make the scenario's call as a command that hears of every step; return its exit code."""
    logging.basicConfig(handlers=[logging.NullHandler()], level=logging.DEBUG)
    try:
        with signals_raise():
            trial.call(host, trial.scenario.action, watcher, worker=True)
    except BaseException as error:
        return exit_code(error)
    return 0


def _judge(trial: Trial, host: SimulatedHost, said: str, what: str, stopped: int) -> int:
    """Check the world without a recovery: undone or done. A reattach is finished although it was stopped.

    A command that is stopped when all is done but its answer ends with a code of its own (UNPRINTED).
    """
    if "sent" not in said:
        return 0
    code = said.partition("ended ")[2].split(" ")[0]
    undone = (trial.before, trial.after) if trial.scenario.goes_on else (trial.before,)
    wanted = {"0": (trial.after,), str(UNPRINTED): (trial.after,), str(stopped): undone}.get(code)
    if wanted is None:
        trial.lose(what, f"it ended with {code or 'nothing'}, wanted 0 or {stopped}")
    else:
        trial.check(host, f"{what}, ended with {code}", *wanted)
    return 1


def _is_stopped() -> bool:
    """Tell whether this worker was told to stop: it ignores the signal from then on."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def _is_told() -> bool:
    """Tell whether this worker was told to stop, also where the signal waits for the end of a block."""
    return _is_stopped() or _waits(signal.SIGTERM)


def _waits(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    return isinstance(handler, DeferredSignals) and number in handler.pending


def _wait_until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.0005)
    return True
