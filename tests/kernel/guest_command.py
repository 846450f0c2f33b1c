"""A command that was started in a guest: its output, its end, and the error of a guest that has failed."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .guest import Guest

COMMAND_TIMEOUT = 120.0


class GuestError(Exception):
    """The guest did not boot, died, or did not answer in time; names the folder with its console and logs."""


class Command:
    """A command that was started in a guest. Its output may be read while it runs."""

    def __init__(self, guest: Guest, number: int, command: str) -> None:
        self._guest = guest
        self._number = number
        self._command = command

    @property
    def stdout(self) -> str:
        """What it has written to its standard output so far."""
        return self._read("out")

    @property
    def stderr(self) -> str:
        """What it has written to its standard error so far."""
        return self._read("err")

    def first_line(self, *, timeout: float = COMMAND_TIMEOUT) -> str:
        """The first line of its standard output, once that is whole: it may arrive in pieces.

        Raises GuestError when the command ends, or TIMEOUT seconds pass, without one.
        """
        end = time.monotonic() + timeout
        while True:
            over = not self.running or time.monotonic() > end
            line, newline, _ = self.stdout.partition("\n")
            if newline:
                return line
            if over:
                raise GuestError(f"{self._command}: no line of output; {self.stderr.strip()}")
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, as far as the guest has said."""
        return self._guest.exit_code(self._number, timeout=0) is None

    def wait(self, *, timeout: float = COMMAND_TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Wait for its end. The exit code is not checked; one of a signal is 128 + its number.

        Raises subprocess.TimeoutExpired after TIMEOUT seconds (the command goes on: see kill) and GuestError
        when the guest died.
        """
        code = self._guest.exit_code(self._number, timeout=timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self._command, timeout, self.stdout, self.stderr)
        return subprocess.CompletedProcess(self._command, code, self.stdout, self.stderr)

    def kill(self) -> None:
        """Send SIGKILL to all its processes, unless it has ended."""
        if self.running:
            self._guest.send(f"kill {self._number}")

    def _read(self, kind: str) -> str:
        path = self._guest.folder / f"{self._number}.{kind}"
        return path.read_text(errors="replace") if path.exists() else ""
