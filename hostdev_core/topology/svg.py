"""Draw a topology as one static picture, SVG with a style sheet: nothing in it moves or asks for more.

The width of a text is not known where it is drawn: each is cut by the widths of a wide typeface, and stands
in a frame of its own that shows nothing beyond, whatever the text.
"""

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

from hostdev_core.topology.labels import PLACE, counts_of, loans_of, manner_of, rows_of
from hostdev_core.topology.palette import MANNERS, MARK_STYLE, marks, variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hostdev_core.topology.labels import Row
    from hostdev_core.topology.tree import Topology

SIGN = "<!-- made by hostdev topology -->"
TITLE = "PCI and USB devices: what hangs on what, and who has it"
_EDGE, _STEP, _LINE, _GAP = 20, 18, 26, 16  # pixels
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[]/ -"), frozenset("mwMWGOQ%@")
# The columns behind the tree with their headers, and the fewest and most pixels that each takes.
_COLUMNS = {
    "what": ("class", 40, 90),
    "model": ("name", 40, 260),
    "driver": ("driver", 40, 150),
    "group": ("IOMMU", 56, 56),
    "state": ("state", 60, 250),
}
Columns = dict[str, tuple[float, float]]


def draw(topology: "Topology") -> str:
    """Draw it; the same topology gives the same text."""
    rows = rows_of(topology)
    columns, width = _columns(rows)
    legend = [*_legend(topology, width)]
    top = max((y for _, y, _, _ in legend), default=_EDGE) + _LINE * 2
    height = top + _LINE * len(rows) + _EDGE
    parts = [
        _head(topology, width, height),
        *(_mark(manner, x, y) for x, y, manner, _ in legend),
        *(
            _text(x + 20, y, min(room, width - _EDGE - x - 20), text, "less")
            for x, y, _, text in legend
            for room in [width_of(text) + 2]
        ),
        *(
            _text(x, top - _LINE, room, _COLUMNS[name][0], "less")
            for name, (x, room) in columns.items()
        ),
        *(part for at, row in enumerate(rows) for part in _row(row, top + _LINE * at, columns)),
        *_branches(rows, top),
        *_brackets(rows, columns["group"][0], top),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _head(topology: "Topology", width: float, height: float) -> str:
    """The beginning: what a screen reader tells, the style sheet, and what is behind everything."""
    told = ". ".join([counts_of(topology), *loans_of(topology)])
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" \
height="{height:.0f}" role="img" aria-labelledby="title told">
  {SIGN}
  <title id="title">{TITLE}</title>
  <desc id="told">{escape(told)}</desc>
  <style>
{variables()}
text {{ font: 12.5px system-ui, "DejaVu Sans", sans-serif; fill: var(--text); }}
.address {{ font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }}
.less {{ fill: var(--less); }}
.b {{ font-weight: 600; }}
.branch {{ fill: none; stroke: var(--line); stroke-width: 1.5; }}
.bracket {{ fill: none; stroke: var(--less); stroke-width: 1.2; }}
.page {{ fill: var(--back); stroke: var(--line); }}
.place {{ color: var(--less); }}
{_manners()}
{MARK_STYLE}
  </style>
  <defs>{marks()}</defs>
  <rect class="page" x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8"/>
{_text(_EDGE, _EDGE, width - 2 * _EDGE, TITLE, "b")}"""


def _manners() -> str:
    return "\n".join(
        f".{name} {{ color: var(--{name}); }} .{name}-pill {{ fill: var(--{name}-back); }}"
        f" .{name}-word {{ fill: var(--{name}); }}"
        for name in MANNERS
    )


def _legend(topology: "Topology", width: float) -> "Iterator[tuple[float, float, str, str]]":
    """What stands below the title, each at its place, with the manner whose mark it has: how many devices are
    used how, side by side, and below what is lent to whom.
    """
    counts = [(manner_of(code), f"{count} {code}") for code, count in topology.counts.items()]
    x, y = float(_EDGE), float(_EDGE + _LINE)
    for manner, text in counts:
        if x > _EDGE and x + width_of(text) + 40 > width:
            x, y = float(_EDGE), y + _LINE
        yield x, y, manner, text
        x += width_of(text) + 40
    for text in loans_of(topology):
        y += _LINE
        yield float(_EDGE), y, "lent", text


def _columns(rows: "Sequence[Row]") -> tuple[Columns, float]:
    """Where each column begins and how wide it is, and the width of the picture."""
    tree = max((_left(row) + len(row.label.address) * 8.2 for row in rows), default=0.0)
    at = tree + 20 + _GAP
    found: Columns = {}
    for name, (_, least, most) in _COLUMNS.items():
        widest = max((width_of(_cell(row, name)) for row in rows), default=0.0)
        found[name] = at, min(max(widest + 2, least), most)
        at += found[name][1] + _GAP
    return found, at + _EDGE


def _left(row: "Row") -> float:
    return _EDGE + row.depth * _STEP


def _cell(row: "Row", column: str) -> str:
    """What stands in a column."""
    label = row.label
    if column == "driver":
        return " · ".join(filter(None, (label.kernel_driver, label.names)))
    return str(getattr(label, column))


def _row(row: "Row", y: float, columns: Columns) -> "Iterator[str]":
    """One node: its mark, its address, and what stands in the columns."""
    label = row.label
    yield _mark(label.manner, _left(row), y)
    yield _text(_left(row) + 20, y, len(label.address) * 8.2 + 4, label.address, "address")
    for name, (x, width) in columns.items():
        text = _cell(row, name)
        if name == "state" and text and label.manner != PLACE:
            shown = min(width_of(text), width)
            yield (
                f'  <rect class="{label.manner}-pill" x="{x - 8:.0f}" y="{y + 3:.0f}"'
                f' width="{shown + 16:.0f}" height="{_LINE - 6}" rx="10"/>'
            )
            yield _text(x, y, width, text, f"{label.manner}-word")
        elif text:
            yield _text(x, y, width, text, "" if name == "model" else "less")


def _mark(manner: str, x: float, y: float) -> str:
    return f'  <use class="{manner}" href="#m-{manner}" x="{x:.0f}" y="{y + 6:.0f}" width="14" height="14"/>'


def _branches(rows: "Sequence[Row]", top: float) -> "Iterator[str]":
    """The lines from each node to what it hangs on."""
    for at, row in enumerate(rows):
        if row.upper is not None:
            x, y = _left(rows[row.upper]) + 7, top + _LINE * at + 13
            begin = top + _LINE * row.upper + 21
            yield f'  <path class="branch" d="M{x:.0f} {begin:.0f}V{y:.0f}H{_left(row) - 2:.0f}"/>'


def _brackets(rows: "Sequence[Row]", x: float, top: float) -> "Iterator[str]":
    """A bracket beside lines that follow each other and are of one IOMMU group; a root bus is in none."""
    lines = [(at, row) for at, row in enumerate(rows) if row.node.kind != "root bus"]
    for group, run in groupby(lines, lambda each: each[1].label.group):
        numbers = [at for at, _ in run]
        if group and len(numbers) > 1:
            y, end = top + _LINE * numbers[0] + 5, top + _LINE * (numbers[-1] + 1) - 5
            yield f'  <path class="bracket" d="M{x - 4:.0f} {y:.0f}h-5V{end:.0f}h5"/>'


def _text(x: float, y: float, width: float, text: str, style: str = "") -> str:
    """A text in a frame of its own, of one line; what is cut, a pointer that rests on it tells."""
    shown = cut(text, width) if style != "address" else text
    name = f' class="{style}"' if style else ""
    whole = f"<title>{escape(text)}</title>" if shown != text else ""
    return (
        f'  <svg x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{_LINE}">'
        f'<text{name} y="17">{whole}{escape(shown)}</text></svg>'
    )


def cut(text: str, width: float) -> str:
    """Cut a text to so many pixels, and mark where something is missing."""
    if width_of(text) <= width:
        return text
    while text and width_of(text + "…") > width:
        text = text[:-1]
    return text + "…"


def width_of(text: str) -> float:
    """The pixels that a text takes at most in a usual typeface: rather too many than too few."""
    return sum(map(_em, text)) * 12.5


def _em(letter: str) -> float:
    if combining(letter):
        return 0.0
    if not letter.isascii():
        return 1.1 if east_asian_width(letter) in "WF" else 0.8
    if letter in _NARROW:
        return 0.42
    if letter in _WIDE:
        return 0.98
    return 0.74 if letter.isupper() else 0.61 if letter.islower() else 0.64
