"""Tables for a terminal; rich is imported only here."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

STYLES = (
    ("stuck", "bold red"),
    ("problem", "bold red"),
    ("note", "yellow"),
    ("ok", "green"),
    ("left over", "bold red"),
    ("lent", "green"),
    ("taken with", "green"),
    ("inactive", "yellow"),
    ("being ", "cyan"),
    ("waits", "cyan"),
    ("unknown", "dim"),
    ("free", "dim"),
)


def table(headers: Sequence[str], sections: Sequence[tuple[str, list[list[str]]]]) -> str:
    """Render sections for a terminal: one table, or a tree for each section when they have headings."""
    console = Console(highlight=False)  # rich would colour numbers and paths by itself
    with console.capture() as shown:
        if any(title for title, _ in sections):
            for title, rows in sections:
                console.print(_tree(title, rows))
        else:
            console.print(_table(headers, [row for _, rows in sections for row in rows]))
    return shown.get().removesuffix("\n")


def levelled(lines: Sequence[tuple[str, str]], indent: int) -> str:
    """Render lines that fit already, each with a level before it, or "" for more of the same."""
    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as shown:
        for level, text in lines:
            console.print(Text(f"{level:{indent}}", style=_style(level)) + Text(text))
    return shown.get().removesuffix("\n")


def _tree(title: str, rows: Sequence[Sequence[str]]) -> Tree:
    tree = Tree(Text(title, style="bold"), guide_style="dim")
    for row in rows:
        tree.add(_row(row))
    return tree


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Render one table; its middle columns are cut short where the terminal is too narrow."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    last = len(headers) - 1
    for number, header in enumerate(headers):
        shown.add_column(Text(header), no_wrap=number == 0, overflow="fold")
    for row in rows:
        cells = [Text(cell, style=_style(cell), overflow="ellipsis") for cell in row]
        for cell in cells[:last]:
            cell.no_wrap = True
        shown.add_row(*cells)
    return shown


def _row(row: Sequence[str]) -> Text:
    cells = [Text(cell, style=_style(cell)) for cell in row if cell not in {"", "-"}]
    return Text("  ").join(cells)


def _style(cell: str) -> str:
    # By its beginning: a state goes on with the domain's name.
    return next((style for word, style in STYLES if cell.startswith(word)), "")
