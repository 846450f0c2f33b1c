"""Lay tables and texts out in the columns of a terminal: what is too long is cut or folded, nothing wraps.

A width of None is a pipe, a file: there nothing is cut, for programs read it.
"""

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Section = tuple[str, Sequence[Sequence[str]]]

GAP = 2
LEAST = 4  # columns, for the last resort
_MARK = "…"
_TAIL = 6  # columns that the end of a text needs behind its first word


class Column(NamedTuple):
    """A column of a table.

    `least` is the width below which it is not cut, unless nothing else helps. `keep` is the part of a cell
    that stays: its "start", its "end", or "both". `optional`: it is left out where the others do not fit.
    `is_state`: a person sees its words in colour. `spare` are words that go first from the end of a cell.
    """

    title: str
    least: int = 0
    keep: str = "start"
    optional: bool = False
    is_state: bool = False
    spare: frozenset[str] = frozenset()


# A line of a table: what it begins with, its cells, padded to the widths, and their columns. A heading of a
# section has no columns.
Line = tuple[str, "Sequence[str]", "Sequence[Column]"]


def plain(line: Line) -> str:
    """A line as it is without colours."""
    return (line[0] + (" " * GAP).join(line[1])).rstrip()


def lay_out(
    columns: "Sequence[Column]", sections: "Sequence[Section]", width: int | None, *, guides: bool
) -> list[Line]:
    """Lay out sections, under their headings where they have any, with the headers above all of them.

    `guides`: the rows of a section hang on its heading by lines, as branches on a tree.
    """
    every = [row for _, rows in sections for row in rows]  # the same widths in all sections
    has_titles = any(title for title, _ in sections)
    indent = ("    " if guides else "  ") if has_titles else ""
    room = None if width is None else width - len(indent)
    chosen, widths = _fit(columns, every, room)
    shown = [columns[at] for at in chosen]
    lines: list[Line] = [(indent, _cells([c.title for c in shown], shown, widths), ())]
    for title, rows in sections:
        if title:
            lines.append(("", [title if width is None else cut(title, width, "both")], ()))
        for number, row in enumerate(rows, 1):
            branch = ("└── " if number == len(rows) else "├── ") if guides else indent
            cells = _cells([row[at] for at in chosen], shown, widths)
            lines.append((branch if has_titles else "", cells, shown))
    return lines


def _fit(
    columns: "Sequence[Column]", rows: "Sequence[Sequence[str]]", room: int | None
) -> tuple[list[int], list[int]]:
    """Choose the columns that are shown, by number, and their widths."""
    chosen = [*range(len(columns))]
    titles = [column.title for column in columns]
    full = [_widest(column) for column in zip(titles, *rows, strict=True)]
    if room is None:
        return chosen, full
    least = [min(full[at], max(c.least, len(c.title))) for at, c in enumerate(columns)]
    for at in reversed(range(len(columns))):
        if columns[at].optional and _total([least[each] for each in chosen]) > room:
            chosen.remove(at)
    widths = _shrink([full[at] for at in chosen], [least[at] for at in chosen], room)
    return chosen, _shrink(widths, [LEAST] * len(widths), room)


def _total(widths: "Sequence[int]") -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _shrink(widths: "Sequence[int]", least: "Sequence[int]", room: int) -> list[int]:
    """Take from the widest column again and again, until all fit or none can be made smaller."""
    found = [*widths]
    while _total(found) > room:
        spare = [at for at in range(len(found)) if found[at] > least[at]]
        if not spare:
            break
        found[max(spare, key=found.__getitem__)] -= 1
    return found


def _cells(
    cells: "Sequence[str]", columns: "Sequence[Column]", widths: "Sequence[int]"
) -> list[str]:
    return [
        cell.ljust(width)
        if len(cell) <= width and cell.isascii()
        else pad(cut(_spared(cell, width, column.spare), width, column.keep), width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]


def _spared(cell: str, width: int, spare: frozenset[str]) -> str:
    """Drop words that say little from the end of a cell that does not fit."""
    words = cell.split(" ")
    while spare and len(words) > 1 and words[-1] in spare and width_of(" ".join(words)) > width:
        words.pop()
    return " ".join(words)


def _widest(texts: "Sequence[str]") -> int:
    return max(map(len if "".join(texts).isascii() else width_of, texts))


def width_of(text: str) -> int:
    """The columns that a text takes on a terminal: East Asian letters take two, marks over letters none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int) -> str:
    """Fill a text up with spaces."""
    return text + " " * (width - width_of(text))


def cut(text: str, width: int, keep: str = "start") -> str:
    """Cut a text to a width, and mark where something is missing; `keep` as in Column.

    Of "both" the first word stays, and as much of the end as has room.
    """
    if width_of(text) <= width:
        return text
    if keep == "start":
        return _head(text, width - 1) + _MARK
    first = text.partition(" ")[0] + " " if keep == "both" else ""
    if width_of(first) > width - _TAIL:
        first = ""
    return first + _MARK + _head(text[::-1], width - width_of(first) - 1)[::-1]


def _head(text: str, width: int) -> str:
    """As much of the beginning as has room."""
    if text.isascii():
        return text[: max(width, 0)]
    taken = ""
    for letter in text:
        if width_of(taken + letter) > width:
            break
        taken += letter
    return taken


def fold(text: str, width: int | None, first: str = "", indent: str = "  ") -> list[str]:
    """Fold a text at its spaces into lines of a width: one that begins with `first`, then indented ones."""
    if width is None or width_of(first + text) <= width:
        return [first + text]
    lines: list[str] = []
    line, begun = first, False
    for word in _words(text, max(width - max(len(first), len(indent)), 1)):
        if begun and width_of(f"{line} {word}") > width:
            lines.append(line)
            line, begun = indent, False
        line += f" {word}" if begun else word
        begun = True
    return [*lines, line]


def _words(text: str, width: int) -> "Iterable[str]":
    """Yield the words of a text; one that is wider than a line in pieces."""
    for word in text.split():
        rest = word
        while width_of(rest) > width:
            head = _head(rest, width) or rest[0]
            yield head
            rest = rest[len(head) :]
        yield rest
