"""A terminal of a given width, in which the real command runs: what a person sees, line by line."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from contextlib import suppress
from typing import NamedTuple
from unicodedata import combining, east_asian_width

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, clean_environment

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
ERASED = re.compile(r"[^\n]*\r\x1b\[K")


class Shown(NamedTuple):
    """What a command has written to its terminal, and its exit code."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """The lines as a person reads them in the end, without colours, and without the progress before."""
        left = ESCAPES.sub("", ERASED.sub("", self.raw))
        return [line.rstrip("\r") for line in left.splitlines()]

    @property
    def text(self) -> str:
        """All lines, folded ones put together again."""
        return " ".join(" ".join(self.lines).split())


def on_a_terminal(*words: str, host: SimulatedHost, columns: int = 80, **environment: str) -> Shown:
    """Run it with a terminal as its standard output and standard error."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *words, "--host", host.root],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        env=clean_environment(TERM="xterm-256color", **environment),
    ) as process:
        os.close(writer)
        data = b""
        with suppress(OSError):  # the terminal is closed
            while part := os.read(reader, 65536):
                data += part
        os.close(reader)
    return Shown(process.returncode, data.decode(errors="replace"))


def width_of(line: str) -> int:
    """The columns that a line takes on a terminal."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in line)


def check_fits(shown: Shown, columns: int) -> None:
    """Assert that no line is longer than the terminal, and nothing controls it but colours."""
    assert [line for line in shown.lines if width_of(line) > columns] == []
    assert "\x1b" not in "".join(shown.lines)


def check_headers(lines: list[str], headers: list[str]) -> dict[str, int]:
    """Assert that the first of these lines has these headers, in order; return where each begins."""
    assert lines[0].split() == " ".join(headers).split()
    return {header: lines[0].index(header) for header in headers}
