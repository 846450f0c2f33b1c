"""Colours for a terminal; rich is imported only here."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from hostdev_core.cli.layout import GAP, Line, plain

STYLES = (
    ("stuck", "bold red"),
    ("problem", "bold red"),
    ("note", "yellow"),
    ("ok", "green"),
    ("left over", "bold red"),
    ("gone", "bold red"),
    ("replaced", "bold red"),
    ("rebound", "bold red"),
    ("foreign", "magenta"),
    ("lent", "green"),
    ("sibling", "green"),
    ("inactive", "yellow"),
    ("preparing", "cyan"),
    ("releasing", "cyan"),
    ("waiting", "cyan"),
    ("unknown", "dim"),
    ("available", "bold"),
)


def coloured(lines: Sequence[Line]) -> str:
    """Render the lines of a table, none of them longer than it is."""
    console = Console(highlight=False)  # rich would colour numbers and paths by itself
    with console.capture() as shown:
        for line in lines:
            console.print(_text(line), soft_wrap=True)  # it is laid out already
    return shown.get().removesuffix("\n")


def _text(line: Line) -> Text:
    begin, cells, columns = line
    if not columns:  # a heading, or the headers
        return Text(plain(line), style="bold")
    texts = [
        Text(cell, style=_style(cell) if column.is_state else "")
        for cell, column in zip(cells, columns, strict=True)
    ]
    text = Text(begin, style="dim") + Text(" " * GAP).join(texts)
    text.rstrip()
    return text


def levelled(lines: Sequence[tuple[str, str]], indent: int) -> str:
    """Render lines that fit already, each with a level before it, or "" for more of the same."""
    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as shown:
        for level, text in lines:
            console.print(Text(f"{level:{indent}}", style=_style(level)) + Text(text))
    return shown.get().removesuffix("\n")


def _style(cell: str) -> str:
    # By its beginning: a state goes on with the domain's name.
    return next((style for word, style in STYLES if cell.startswith(word)), "")
