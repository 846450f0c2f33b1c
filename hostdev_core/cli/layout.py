"""Lay out tables: headers, headings, rows in columns, a tree's branches. `cli/fitting.py` makes them fit."""

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Section = tuple[str, Sequence[Sequence[str]]]

GAP = 2


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

    A width of None is a pipe or a file: nothing is cut, for programs read it. `guides`: the rows of a
    section hang on its heading by lines, as branches on a tree.
    """
    every = [row for _, rows in sections for row in rows]  # the same widths in all sections
    has_titles = any(title for title, _ in sections)
    indent = ("    " if guides else "  ") if has_titles else ""
    titles = [column.title for column in columns]
    widths = [_widest(column) for column in zip(titles, *every, strict=True)]
    chosen = [*range(len(columns))]
    if width is not None:
        from hostdev_core.cli.fitting import choose, cut

        chosen, widths = choose(columns, widths, width - len(indent), GAP)
        sections = [(cut(title, width, "both"), rows) for title, rows in sections]
    shown = [columns[at] for at in chosen]
    lines: list[Line] = [(indent, _cells([c.title for c in shown], shown, widths), ())]
    for title, rows in sections:
        if title:
            lines.append(("", [title], ()))
        for number, row in enumerate(rows, 1):
            branch = ("└── " if number == len(rows) else "├── ") if guides else indent
            cells = _cells([row[at] for at in chosen], shown, widths)
            lines.append((branch if has_titles else "", cells, shown))
    return lines


def _cells(
    cells: "Sequence[str]", columns: "Sequence[Column]", widths: "Sequence[int]"
) -> list[str]:
    return [
        cell.ljust(width) if len(cell) <= width and cell.isascii() else _fitted(cell, column, width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]


def _fitted(cell: str, column: Column, width: int) -> str:
    from hostdev_core.cli.fitting import fit

    return fit(cell, column, width)


def _widest(texts: "Sequence[str]") -> int:
    if "".join(texts).isascii():
        return max(map(len, texts))
    from hostdev_core.cli.fitting import width_of  # here: most tables have no such letters

    return max(map(width_of, texts))
