"""What the processes tell of themselves, in files that survive whoever is killed."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Figures(NamedTuple):
    """What was done and what was lost.

    `gave_up` are calls that ended since the world kept changing under them, `looks` those of the
    observer. Each loss is a text.
    """

    operations: int
    refusals: int
    gave_up: int
    recoveries: int
    kills: int
    replugs: int
    looks: int
    losses: list[str]


class Log:
    """A folder with a file for each process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def note(self, what: str, end: str) -> None:
        """One call has ended, or one thing has happened; one line in one write."""
        self._write([what, end])

    def loss(self, text: str) -> None:
        """The promise was not kept."""
        self._write(["loss", text])

    def note_death(self) -> None:
        """This process is about to kill itself."""
        Path(self._folder, f"killed-{os.getpid()}").touch()

    def was_killed(self, pid: int) -> bool:
        """Whether a process has killed itself."""
        return Path(self._folder, f"killed-{pid}").exists()

    def losses(self) -> list[str]:
        """The losses so far."""
        return [text for what, text in self._rows() if what == "loss"]

    def figures(self) -> Figures:
        """The sum of all files."""
        counts = Counter[str]()
        for what, end in self._rows():
            counts[what] += 1
            counts[f"end {end}"] += 1
        killed = sum(name.startswith("killed-") for name in os.listdir(self._folder))
        return Figures(
            counts["end done"] + counts["end refused"] + counts["end gave up"],
            counts["end refused"],
            counts["end gave up"],
            counts["recover"],
            killed + counts["kill"],
            counts["plug"],
            counts["look around"],
            self.losses(),
        )

    def _write(self, row: list[str]) -> None:
        path = f"{self._folder}/log-{os.getpid()}"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(row).encode() + b"\n")
        finally:
            os.close(fd)

    def _rows(self) -> list[tuple[str, str]]:
        rows: list[tuple[str, str]] = []
        for path in Path(self._folder).glob("log-*"):
            whole, _, _ = path.read_text().rpartition(
                "\n"
            )  # the last line may be cut off by a kill
            rows += (tuple(json.loads(line)) for line in whole.splitlines())
        return rows
