"""The progress on standard error: what is logged, and on a terminal a line of the steps under way."""

import logging
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from hostdev_core.cli.options import Options
from hostdev_core.cli.output import clean, terminal_width
from hostdev_core.runtime.lanes import PROGRESS

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
log = logging.getLogger("hostdev")


@contextmanager
def progress_shown(options: Options) -> Generator[None, None, None]:
    """Show the log on stderr: each step with -v, each write with -vv, else one line that changes."""
    progress = Progress(options.verbose, is_person=_is_person())
    log.addHandler(progress)
    log.setLevel(progress.level)
    log.propagate = False  # a handler of the root logger would print each line again
    try:
        yield
    finally:
        log.removeHandler(progress)
        progress.close()


def _is_person() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"  # which cannot erase a line


class Progress(logging.Handler):
    """Log handler for stderr; on a terminal, a line shows the running steps with their seconds, oldest first.

    The line is written anew each second: a step that hangs logs nothing.
    """

    def __init__(self, verbose: int, *, is_person: bool) -> None:
        level = LEVELS[min(verbose, 2)]
        self._lasting = level
        self._is_person = is_person
        self._shown = self._is_busy = False
        self._running: list[tuple[str, float]] = []
        super().__init__(min(level, PROGRESS) if is_person else level)
        if is_person:
            self._former = signal.signal(signal.SIGALRM, self._tick)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record of the chosen level; keep the list of running steps by `begins` and `ends`."""
        begins, ends = getattr(record, "begins", None), getattr(record, "ends", None)
        if begins:
            self._running.append((begins, time.monotonic()))
        elif ends:
            self._end(ends)
        elif record.levelno >= self._lasting:
            text = "; ".join(clean(line) for line in record.getMessage().splitlines())
            warning = "warning: " if record.levelno >= logging.WARNING else ""
            self._print(f"hostdev: {warning}{text}\n")
        if self._is_person:
            seconds = 1.0 if self._running else 0.0  # 0 stops the ticks
            signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
            self._show()

    def _end(self, step: str) -> None:
        """Drop the oldest running step of this text."""
        for number, (text, _) in enumerate(self._running):
            if text == step:
                del self._running[number]
                return

    def _print(self, text: str) -> None:
        self._is_busy = True  # a tick must not write into the midst of this
        self._erase()
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            pass  # the terminal is gone; the change goes on without its progress
        self._is_busy = False

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if not self._is_busy:
            self._show()

    def _show(self) -> None:
        if self._running:
            # One column less: some terminals wrap a line that fills the last one.
            _draw(f"\r\x1b[K{_line(self._running, terminal_width(2) - 1)}")
            self._shown = True
        else:
            self._erase()

    def _erase(self) -> None:
        if self._shown:
            _draw("\r\x1b[K")
            self._shown = False

    def close(self) -> None:
        """Erase the line of running steps, and tick no more."""
        if self._is_person:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._former)
        self._erase()
        super().close()


def _line(running: list[tuple[str, float]], width: int) -> str:
    """Render as many steps as fit, each with its seconds once it has taken one; at least one, cut short."""
    now = time.monotonic()
    steps = [clean(text) + (f", {now - since:.0f} s" if now - since >= 1 else "")
             for text, since in running]  # fmt: skip
    for shown in range(len(steps), 1, -1):
        hidden = [f"and {len(steps) - shown} more"] if shown < len(steps) else []
        if len(line := "; ".join([*steps[:shown], *hidden])) <= width:
            return line
    more = f" (and {len(steps) - 1} more)" if len(steps) > 1 else ""
    return f"{steps[0][: max(0, width - len(more))]}{more}"[:width]


def _draw(text: str) -> None:
    """Write to the terminal past sys.stderr's buffer, which a tick may find in the midst of a write."""
    try:
        os.write(sys.stderr.fileno(), text.encode(sys.stderr.encoding, "replace"))
    except OSError:
        pass  # the terminal is gone
