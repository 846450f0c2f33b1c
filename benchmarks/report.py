"""The page of a run: Markdown from its sections, with the picture beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import chart
from benchmarks.results import Section, Table, shown, times

HEAD = """\
# Performance

What hostdev costs, beside other tools and beside the bare work that each of them must do. `{command}` has written this page in one run, and writes it again anywhere: whoever doubts a figure makes it anew. **Compare figures of one table with each other, not with another machine's**: all in a table took turns in the same minutes on the same machine. Ratios come first; below them medians, with the least and the greatest of all rounds in brackets.

"""  # noqa: E501 (Markdown)
PICTURE = "performance.svg"


def write(page: Path, sections: Sequence[Section], facts: Mapping[str, str], command: str) -> None:
    """Write the page, and its picture to `pictures/` beside it."""
    text = HEAD.format(command=command)
    picture = chart.draw(sections)
    if picture:
        (page.parent / "pictures").mkdir(exist_ok=True)
        (page.parent / "pictures" / PICTURE).write_text(picture)
        text += f"![{chart.TITLE}](pictures/{PICTURE})\n\n"
    page.write_text(text + _facts(facts) + "\n".join(map(section, sections)))


def section(part: Section) -> str:
    """A section as Markdown."""
    head = f"## {part.title}\n\n" + (f"{part.text}\n\n" if part.text else "")
    return head + "\n".join(map(table, part.tables))


def table(part: Table) -> str:
    """A table as Markdown: the ratios, the medians with their spread, and the notes."""
    text = f"### {part.title}\n\n{part.text}\n\n"
    rows = [row for row in part.rows if part.rows[row]]
    if rows and (part.base_row or part.base_column):
        base = part.base_row or f"“{part.base_column}” of the same row"
        ratios = [[row, *(times(part.ratio(row, c)) for c in part.columns)] for row in rows]
        text += f"In multiples of {base}:\n\n{_grid(['', *part.columns], ratios)}\n"
    if rows:
        cells = [
            [row, *(shown(part.rows[row].get(c, []), part.unit_of(c)) for c in part.columns)]
            for row in rows
        ]
        text += _grid(["", *part.columns], cells) + "\n"
    return text + "".join(f"- {row}: {note}\n" for row, note in part.notes.items())


def plain(sections: Sequence[Section]) -> str:
    """The sections for a terminal."""
    return "\n".join(map(section, sections))


def _facts(facts: Mapping[str, str]) -> str:
    return "## Where\n\n" + _grid(["", ""], [[*pair] for pair in facts.items()]) + "\n"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)] if len(head) > 2 else ["---"] * 2, *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
