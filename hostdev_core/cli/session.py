"""Shared by the commands that open a connection: opening it, and signals."""

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import NoReturn

from hostdev_core.cli.failures import Stopped
from hostdev_core.cli.options import Options, deadlines, open_host
from hostdev_core.cli.output import UnprintedError
from hostdev_core.cli.progress import progress_shown
from hostdev_core.connection import Connection
from hostdev_core.errors import WAS_DONE
from hostdev_core.opening import open_for_one_call
from hostdev_core.worker.run import STOPS


@contextmanager
def connected(options: Options, *, read_only: bool = False) -> Generator[Connection, None, None]:
    """Open a connection whose changes are carried out by a worker process.

    Plugins' prints go to standard error meanwhile: programs read the answer from standard output.
    SIGINT, SIGTERM and SIGHUP raise Stopped: the worker undoes before the command ends. Once the change
    is done they can only stop the answer: they raise UnprintedError, until the command ends.
    """
    is_named = options.host is not None or options.state_dir is not None
    host = open_host(options) if is_named else None  # None: the URI may bring its own host
    options.at_end += (handle_stops(_stop),)
    with progress_shown(options), redirect_stdout(sys.stderr), open_for_one_call(
        options.uri, host=host, read_only=read_only, deadlines=deadlines(options)
    ) as conn:  # fmt: skip
        yield conn
        if not read_only:  # from here on "stopped, after the undo" would be untrue
            handle_stops(_stop_the_answer)


@contextmanager
def signals_raise() -> Generator[None, None, None]:
    """Raise Stopped for SIGINT, SIGTERM and SIGHUP, unless they are ignored, as under nohup(1)."""
    restore = handle_stops(_stop)
    try:
        yield
    finally:
        restore()


def handle_stops(handler: Callable[[int, FrameType | None], NoReturn]) -> Callable[[], None]:
    """Handle the signals that stop commands, but ignored ones; return a call that restores the handlers."""
    before = {number: signal.getsignal(number) for number in STOPS}

    def restore() -> None:
        for number, former in before.items():
            signal.signal(number, former)

    for number, former in before.items():
        if former is not signal.SIG_IGN:  # nohup(1) wants the command to go on
            signal.signal(number, handler)
    return restore


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


def _stop_the_answer(number: int, frame: FrameType | None) -> NoReturn:
    raise UnprintedError(f"{Stopped(number)} before it could answer; {WAS_DONE}")
