"""Read what a watch tells, in this process or of the real command."""

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hostdev_core import Event, EventKind, Watch
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import start

PATIENCE = 60.0


class Lines:
    """The events that a running `hostdev watch --json` prints, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen: list[dict[str, Any]] = []
        self._text = b""

    def next(self) -> dict[str, Any]:
        """Wait for the next one."""
        while b"\n" not in self._text:
            self._text += self._read()
        line, _, self._text = self._text.partition(b"\n")
        self.seen.append(json.loads(line))
        return self.seen[-1]

    def until(self, event: str, address: str) -> dict[str, Any]:
        """Wait until this has happened to this device."""
        while True:
            found = self.next()
            if (found["event"], found["address"]) == (event, address):
                return found

    def kinds(self, address: str) -> list[str]:
        """What was told of a device so far, but for where it stood first."""
        return [e["event"] for e in self.seen if e["address"] == address and not e["initial"]]

    def _read(self) -> bytes:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        ready, _, _ = select.select([fd], [], [], PATIENCE)
        data = os.read(fd, 1 << 16) if ready else b""
        if not data:
            self.process.kill()
            raise AssertionError(f"no more events: {self.process.communicate()}; seen: {self.seen}")
        return data


@contextmanager
def watching(host: SimulatedHost, *words: str) -> Iterator[Lines]:
    """A running command that listens already; it is killed at the end of the block."""
    with start("watch", "--json", "--state", *words, host=host) as process:
        lines = Lines(process)
        try:
            lines.next()
            yield lines
        finally:
            process.kill()


def until(events: Watch, kind: EventKind, device: str) -> list[Event]:
    """Take events until this has happened to this device."""
    seen: list[Event] = []
    while not (seen and (seen[-1].kind, seen[-1].device) == (kind, device)):
        event = events.next(timeout=PATIENCE)
        assert event is not None, seen
        seen.append(event)
    return seen


def rest(events: Watch) -> list[Event]:
    """Take what has happened by now."""
    seen: list[Event] = []
    while (event := events.next(timeout=0)) is not None:
        seen.append(event)
    return seen
