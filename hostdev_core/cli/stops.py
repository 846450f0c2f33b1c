"""The signals that stop a command: they raise Stopped."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from hostdev_core.cli.failures import Stopped
from hostdev_core.runtime.signals import STOPS


@contextmanager
def signals_raise() -> Generator[None, None, None]:
    """Raise Stopped for SIGINT, SIGTERM and SIGHUP, unless they are ignored, as under nohup(1)."""
    restore = handle_stops(stop)
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


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """Raise Stopped: the handler of a command that has not done its work yet."""
    raise Stopped(number)
