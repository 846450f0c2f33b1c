"""Find the known messages in a log of any size and encoding, in bounded memory and time.

The log goes through a window. An error's anchors (literals) are looked for in it, which is a search at the
speed of memory; only around an anchor that is there is a pattern tried. A match may not be longer than
`LONGEST`, so that as much text on both sides of an anchor is enough to find all of it.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from hostdev_core.known_errors.entry import LONGEST, KnownError, Wording
from hostdev_core.known_errors.mentions import devices_in

CHUNK = 256 * 1024
"""How many bytes are read at a time."""
SOME = 8
"""How many devices, groups and unknown lines are kept for each."""
SHOWN = 300
"""How many characters of a line are kept on each side of a message."""
_FEW_LINES = 20
_LOOKED_AT = 1000  # of the lines with one message, for devices
_ESCAPE = re.compile(r"\x1b\[[0-9;]{0,16}m")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-9;]{0,16})?\Z")


class Finding:
    """A known message in a log: where it stands first, how often, and what it names."""

    def __init__(self, error: KnownError, line: str, number: int, place: int) -> None:
        """Begin with the first line that has it, cut short; `number` counts from 1, `place` in characters."""
        self.error = error
        self.line = line
        self.number = number
        self.place = place
        self.count = 0
        self.devices: dict[str, None] = {}
        self.groups: dict[int, None] = {}

    def add(self, line: str, group: str | None) -> None:
        """Count one more line."""
        self.count += 1
        if self.count <= _LOOKED_AT and len(self.devices) < SOME:
            self.devices.update(dict.fromkeys(devices_in(line)))
        if group is not None and len(self.groups) < SOME:
            self.groups[int(group)] = None


class Reading(NamedTuple):
    """What is known in a log, in the order of first appearance.

    `lines` is how many lines it has; `unknown` are those without a known message, of a log of a few lines.
    """

    findings: tuple[Finding, ...]
    lines: int
    unknown: tuple[str, ...]


class _Window(NamedTuple):
    """A part of the log: anchors count between `begin` and `end`, what is beside them is for matches only."""

    text: str
    begin: int
    end: int
    place: int  # of the text's first character, in the log
    line: int  # its number


def read_log(stream: BinaryIO, known: Iterable[KnownError]) -> Reading:
    """Find the known messages in a log; OSError when it cannot be read."""
    pairs = [(error, wording) for error in known for wording in error.wordings]
    findings: dict[str, Finding] = {}
    window = _Window("", 0, 0, 0, 1)
    is_whole = True
    for window in _windows(stream):
        is_whole = is_whole and window.place == 0
        for error, wording in pairs:
            _look(window, error, wording, findings)
    text = window.text
    lines = window.line - 1 + text.count("\n") + (not text.endswith("\n") and bool(text))
    few = text.split("\n") if is_whole and lines <= _FEW_LINES else []
    return Reading(
        tuple(sorted(findings.values(), key=lambda finding: finding.place)),
        lines,
        tuple(_unknown(few, pairs))[:SOME],
    )


def _unknown(lines: Iterable[str], pairs: Iterable[tuple[KnownError, Wording]]) -> Iterator[str]:
    for line in lines:
        near = (wording for _, wording in pairs if wording.anchor in line)
        if line.strip() and not any(wording.compiled().search(line) for wording in near):
            yield line.strip()


def _windows(stream: BinaryIO) -> Iterator[_Window]:
    text, begin, place, line = "", 0, 0, 1
    for more, is_last in _texts(stream):
        text += more
        end = len(text) if is_last else max(begin, len(text) - 2 * LONGEST)
        yield _Window(text, begin, end, place, line)
        gone = max(0, end - 2 * LONGEST)
        line += text.count("\n", 0, gone)
        text, begin, place = text[gone:], end - gone, place + gone


def _texts(stream: BinaryIO) -> Iterator[tuple[str, bool]]:
    """Read the log as plain text, part by part; the last part, which may be empty, says so."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    while data := stream.read(CHUNK):
        text = _plain(rest + decoder.decode(data))
        unfinished = _UNFINISHED.search(text, max(0, len(text) - 20))
        rest = unfinished[0] if unfinished else ""
        yield text.removesuffix(rest), False
    yield _plain(rest + decoder.decode(b"", final=True)), True


def _plain(text: str) -> str:
    """Take out what stands between the letters: NULs of UTF-16, returns, colours."""
    text = text.replace("\0", "").replace("\r", "")
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def _look(
    window: _Window, error: KnownError, wording: Wording, findings: dict[str, Finding]
) -> None:
    """Find all lines of a window with one wording of an error."""
    text, anchor = window.text, wording.anchor
    at = text.find(anchor, window.begin)
    pattern = wording.compiled() if -1 < at < window.end else None
    while pattern is not None and -1 < at < window.end:
        first, last = _line_around(text, at)
        match = pattern.search(text, first, last)
        if match is None:
            is_all = last == len(text) or text[last] == "\n"
            # In a long line an anchor further on may match.
            at = text.find(anchor, last if is_all else max(at + len(anchor), last - LONGEST))
            continue
        line = text[first:last]
        if error.name not in findings or window.place + at < findings[error.name].place:
            number = window.line + text.count("\n", 0, at)
            shown = text[max(first, match.start() - SHOWN) : min(last, match.end() + SHOWN)]
            _move(findings, Finding(error, shown.strip(), number, window.place + at))
        findings[error.name].add(line, match.groupdict().get("group"))
        at = text.find(anchor, max(last, match.end()))


def _line_around(text: str, at: int) -> tuple[int, int]:
    """Where the line around a place begins and ends; of a long line, what a match can be in."""
    first = max(text.rfind("\n", 0, at) + 1, at - 2 * LONGEST, 0)
    last = text.find("\n", at)
    return first, min(len(text) if last < 0 else last, at + 2 * LONGEST)


def _move(findings: dict[str, Finding], first: Finding) -> None:
    """Let a finding begin at an earlier line, which another wording has."""
    former = findings.get(first.error.name)
    if former is not None:
        first.count = former.count
        first.devices, first.groups = former.devices, former.groups
    findings[first.error.name] = first
