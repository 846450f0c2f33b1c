"""How long a worker is waited for: not for ever, whoever stops it and whatever it waits for."""

import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.host import Deadlines

SILENCE = 600.0  # seconds; plugins may take their time


class Patience:
    """Ends when a worker has been stopped (SIGSTOP) for as long as the shortest deadline, or says
    nothing for ten minutes and four times all deadlines.

    `gave_up` tells why, once it has ended.
    """

    def __init__(self, deadlines: "Deadlines") -> None:
        self._stopped = min(deadlines)
        self.longest = max(deadlines)
        self._silence = SILENCE + 4 * sum(deadlines)
        self._heard = time.monotonic()
        self._stopped_since: float | None = None
        self.gave_up = ""

    @property
    def pulse(self) -> float:
        """How often to look, seconds."""
        return max(0.02, min(1.0, self._stopped / 4))

    def heard(self) -> None:
        """It said something."""
        self._heard = time.monotonic()
        self.gave_up = ""

    def has_ended(self, pid: int) -> bool:
        """Whether to wait no more for this one."""
        now = time.monotonic()
        if not _is_stopped(pid):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        elif now - self._stopped_since >= self._stopped:
            self.gave_up = (
                f"was stopped {now - self._stopped_since:.3g} s ago (SIGSTOP) and is still"
            )
        if now - self._heard >= self._silence:
            self.gave_up = f"has said nothing for {now - self._heard:.0f} s"
        return bool(self.gave_up)


def _is_stopped(pid: int) -> bool:
    """By a signal, not by a debugger (proc_pid_stat(5)); False for one that is gone."""
    with (
        suppress(OSError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file,
    ):
        return file.read().rpartition(")")[2].split()[0] == "T"
    return False
