"""Text for people in the width of their terminal."""

import re
from collections.abc import Iterator
from unicodedata import east_asian_width

# What stands between backticks is a command or a line to paste: it stays on one line where it fits.
_WORDS = re.compile(r"[^\s`]*`[^`]*`\S*|\S+")


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` columns; a word that is longer is cut."""
    lines = [""]
    for word in _parts(text, width):
        if lines[-1] and _columns(lines[-1]) + 1 + _columns(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _parts(text: str, width: int) -> Iterator[str]:
    for word in _WORDS.findall(text):
        pieces = [word] if _columns(word) <= width else word.split()
        for piece in pieces:
            yield from _cut(piece, width)


def _cut(word: str, width: int) -> Iterator[str]:
    part = ""
    for letter in word:
        if part and _columns(part) + _columns(letter) > width:
            yield part
            part = ""
        part += letter
    yield part


def _columns(text: str) -> int:
    """The columns that a terminal needs for a text: two for each wide letter (UAX #11)."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
