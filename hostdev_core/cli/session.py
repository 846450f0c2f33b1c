"""Shared by the commands that open a connection: opening it, signals, and the progress on stderr."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import NoReturn

from hostdev_core.cli.failures import Stopped
from hostdev_core.cli.options import Options, deadlines, open_host
from hostdev_core.cli.output import UnprintedError, clean
from hostdev_core.connection import Connection
from hostdev_core.errors import WAS_DONE
from hostdev_core.opening import open_for_one_call
from hostdev_core.runtime.lanes import PROGRESS
from hostdev_core.worker.run import STOPS

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
log = logging.getLogger("hostdev")


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


@contextmanager
def progress_shown(options: Options) -> Generator[None, None, None]:
    """Show the log on stderr: each step with -v, each write with -vv, else one line that changes."""
    progress = Progress(options.verbose, is_person=sys.stderr.isatty())
    log.addHandler(progress)
    log.setLevel(progress.level)
    log.propagate = False  # a handler of the root logger would print each line again
    try:
        yield
    finally:
        log.removeHandler(progress)
        progress.clear()


class Progress(logging.Handler):
    """Log handler for stderr; on a terminal, one line shows the running steps, the oldest first."""

    def __init__(self, verbose: int, *, is_person: bool) -> None:
        level = LEVELS[min(verbose, 2)]
        self._lasting = level
        self._is_person = is_person
        self._shown = False
        self._running: list[str] = []
        super().__init__(min(level, PROGRESS) if is_person else level)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record of the chosen level; keep the list of running steps by `begins` and `ends`."""
        begins, ends = getattr(record, "begins", None), getattr(record, "ends", None)
        if begins or ends:
            self._running += [begins] if begins else []
            if ends in self._running:
                self._running.remove(ends)
        elif record.levelno >= self._lasting:
            text = "; ".join(clean(line) for line in record.getMessage().splitlines())
            warning = "warning: " if record.levelno >= logging.WARNING else ""
            self.clear()
            self._write(f"hostdev: {warning}{text}\n")
        if self._is_person:
            self._show()

    def _show(self) -> None:
        self.clear()
        if self._running:
            first, *more = map(clean, self._running)
            text = f"{first} (and {len(more)} more)" if more else first
            # One column less: some terminals wrap a line that fills the last one.
            self._write(f"\r\x1b[K{text[: _columns() - 1]}")
            self._shown = True

    def clear(self) -> None:
        """Erase the line of running steps."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            pass  # the terminal is gone; the change goes on without its progress


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80  # 0 where the terminal's size was never set
    except OSError:
        return 80
