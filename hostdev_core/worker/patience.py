"""Bound the time that a caller waits for its worker, whether that is stopped or waits for something."""

import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.runtime.deadlines import Deadlines

SILENCE = 600.0  # seconds; plugins may take their time


class Patience:
    """Runs out when a worker has been stopped (SIGSTOP) for as long as the shortest deadline, or has
    sent no message for ten minutes and four times all deadlines.

    `reason` tells why, once it has run out.
    """

    def __init__(self, deadlines: "Deadlines") -> None:
        self._stopped = min(deadlines)
        self.longest = max(deadlines)
        self._silence = SILENCE + 4 * sum(deadlines)
        self._restarted = time.monotonic()
        self._stopped_since: float | None = None
        self.reason = ""

    @property
    def interval(self) -> float:
        """Seconds between two looks at the worker."""
        return max(0.02, min(1.0, self._stopped / 4))

    def restart(self) -> None:
        """Count the silence from now on: the worker has sent a message, or is waited for anew."""
        self._restarted = time.monotonic()
        self.reason = ""

    def has_run_out(self, pid: int) -> bool:
        """Whether to wait no more for the worker with this pid."""
        now = time.monotonic()
        if not _is_stopped(pid):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        elif now - self._stopped_since >= self._stopped:
            self.reason = (
                f"was stopped {now - self._stopped_since:.3g} s ago (SIGSTOP) and is still"
            )
        if now - self._restarted >= self._silence:
            self.reason = f"has said nothing for {now - self._restarted:.0f} s"
        return bool(self.reason)


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped this process (proc_pid_stat(5)); False for one that is gone."""
    with (
        suppress(OSError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file,
    ):
        # The command's name, in parentheses, may have blanks and parentheses of its own. "t", traced by a
        # debugger, does not count.
        return file.read().rpartition(")")[2].split()[0] == "T"
    return False
