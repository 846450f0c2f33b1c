"""A conversation with a shell as a page shows it, and the real one."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.helpers.cli_command import clean_environment

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
MARK = "--- that was it, with exit code "


class Turn(NamedTuple):
    """A command and what it prints."""

    command: str
    printed: str

    @property
    def may_fail(self) -> bool:
        """Whether the page shows that it does not succeed; a warning says nothing of that."""
        first, _, rest = self.printed.partition("\n")
        text = rest if first.startswith("hostdev: warning: ") else self.printed
        return text.startswith("hostdev: ")


def shown(text: str) -> list[Turn]:
    """The turns of one block."""
    first, _, rest = text.partition("\n")
    if first == "$ hostdev demo":  # what it prints looks like further turns
        return [Turn("hostdev demo", rest)]
    turns: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            turns.append(([line[2:]], []))
        elif not turns:
            raise ValueError(f"{line!r} comes before any command")
        elif line.startswith("> ") and not turns[-1][1]:
            turns[-1][0].append(line[2:])
        else:
            turns[-1][1].append(line)
    return [Turn("\n".join(command), "\n".join(printed)) for command, printed in turns]


def held(commands: Sequence[str], folder: Path, script: Path) -> list[tuple[Turn, int]]:
    """What bash makes of the commands, one after the other, in a folder; with the exit codes."""
    said = [f"{command}\ncode=$?; echo; echo '{MARK}'$code\n" for command in commands]
    script.write_text("shopt -s expand_aliases\n" + "".join(said))
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", script],
        cwd=folder,
        env=clean_environment(PATH=path, COLUMNS="200", HOSTDEV_DISABLE_PLUGINS="*"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=True,
    )
    parts = re.split(rf"^{MARK}(\d+)\n", done.stdout, flags=re.MULTILINE)
    answers = zip(commands, parts[0::2], parts[1::2], strict=False)
    return [(Turn(command, printed), int(code)) for command, printed, code in answers]


def agree(page: str, real: str) -> bool:
    """Whether a page shows what was printed; empty lines do not count.

    A line "..." stands for any lines, and "..." in a line for any text.
    """
    pattern = "".join(r"(?:.*\n)*?" if x == "..." else _pattern(x) for x in _lines(page))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(real))) is not None


def _pattern(line: str) -> str:
    return re.escape(line).replace(re.escape("..."), ".*") + r"\n"


def _lines(text: str) -> list[str]:
    return [line for line in map(str.rstrip, TIME.sub("TIME", text).splitlines()) if line]
