"""The picture of a run: what lending costs by each way, and how hostdev grows, as bars in SVG.

It is readable on a light and on a dark page: text and lines take the reader's colours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape

from benchmarks.results import Section, Table, shown, times

TITLE = "What lending and taking back costs, in multiples of the bare writes with a thread for each card"
WIDTH, LABEL, BAR, GAP = 900, 250, 13, 8
STYLE = """
    text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #1f2328; }
    .head { font-weight: 600; }
    .small { font-size: 11px; fill: #59636e; }
    .right { text-anchor: end; }
    .paper { fill: #ffffff; }
    .line { stroke: #59636e; stroke-dasharray: 3 3; }
    .there { fill: #0969da; }
    .back { fill: #8250df; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9198a1; }
      .paper { fill: #0d1117; }
      .line { stroke: #9198a1; }
      .there { fill: #4493f8; }
      .back { fill: #ab7df8; }
    }
"""


def draw(sections: Sequence[Section]) -> str | None:
    """The picture: a group of bars for each pair of tables there and back; None where there is none.

    Of a table the column with most cards that all ways have, but no more than eight: that is what
    `make bench` has, too.
    """
    tables = [table for part in sections for table in part.tables]
    pairs = [
        (there, back)
        for there, back in itertools.pairwise(tables)
        if there.title.endswith(": prepare") and back.title.endswith(": reattach")
    ]
    if not pairs:
        return None
    parts, top = [], 52
    for there, back in pairs:
        drawn, top = _group(there, back, top)
        parts += drawn
    return "\n".join([*_head(top), *parts, "</svg>", ""])


def _head(height: int) -> list[str]:
    """What stands above the bars."""
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t">',
        f'  <title id="t">{escape(TITLE)}</title>',
        f"  <style>{STYLE}  </style>",
        f'  <rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>',
        f'  <text class="head" x="16" y="24">{escape(TITLE)}</text>',
        '  <rect class="there" x="16" y="34" width="11" height="11"/>',
        '  <text class="small" x="32" y="44">prepare</text>',
        '  <rect class="back" x="90" y="34" width="11" height="11"/>',
        '  <text class="small" x="106" y="44">reattach</text>',
    ]


def _group(there: Table, back: Table, top: int) -> tuple[list[str], int]:
    """The bars of two tables below `top`, and where the next group begins."""
    column = _column(there)
    rows = [row for row in there.rows if there.ratio(row, column) and back.ratio(row, column)]
    title = f"{there.title.removesuffix(': prepare')}, {column}"
    parts = [f'  <text class="head" x="16" y="{top + 22}">{escape(title)}</text>']
    top += 34
    ratios = [table.ratio(row, column) or 0 for row in rows for table in (there, back)]
    scale = (WIDTH - LABEL - 190) / max([*ratios, 1])
    start = top
    for row in rows:
        parts.append(
            f'  <text class="right" x="{LABEL - 10}" y="{top + BAR + 4}">{escape(row)}</text>'
        )
        for number, (kind, table) in enumerate((("there", there), ("back", back))):
            parts += _bar(table, row, column, kind, top + number * BAR, scale)
        top += 2 * BAR + GAP
    one = LABEL + scale
    parts.append(
        f'  <line class="line" x1="{one:.1f}" y1="{start - 4}" x2="{one:.1f}" y2="{top}"/>'
    )
    return parts, top + 12


def _bar(table: Table, row: str, column: str, kind: str, y: int, scale: float) -> list[str]:
    ratio = table.ratio(row, column) or 0
    width = max(1, ratio * scale)
    text = f"{times(ratio)}, {shown(table.rows[row][column], table.unit_of(column)).split(' (')[0]}"
    return [
        f'  <rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 1}"/>',
        f'  <text class="small" x="{LABEL + width + 6:.1f}" y="{y + 10}">{escape(text)}</text>',
    ]


def _column(table: Table) -> str:
    """The column that is drawn."""
    full = [c for c in table.columns if table.middle(table.base_row, c) is not None]
    return max(
        (c for c in full if int(c.split()[0]) <= 8),
        key=lambda c: int(c.split()[0]),
        default=table.columns[0],
    )
