"""What a measurement answers: tables of samples, and what is said of samples."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Samples = list[float]
TIMES = "×"  # noqa: RUF001 (no letter: the sign)


@dataclass
class Table:
    """Samples by row and column, in the order in which they were added.

    `title` and `text` say what was done, and how it was verified. `unit` is that of all samples, or of
    each column by `units`: "s", "MB", "/s", or "" for a plain number. Ratios are to the row `base_row`, in
    each column, or to the column `base_column`, in each row. `notes` say of a row what is different, or why
    it was not measured.
    """

    title: str
    text: str
    columns: Sequence[str]
    unit: str = "s"
    base_row: str = ""
    base_column: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, Samples]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, column: str, *samples: float) -> None:
        """Add samples to a cell."""
        self.rows.setdefault(row, {}).setdefault(column, []).extend(samples)

    def missing(self, row: str, reason: str) -> None:
        """Tell of a row that is not measured, with the reason and what to do about it."""
        self.rows.setdefault(row, {})
        self.notes[row] = reason

    def middle(self, row: str, column: str) -> float | None:
        """The median of a cell; None of one that is empty."""
        samples = self.rows.get(row, {}).get(column)
        return statistics.median(samples) if samples else None

    def ratio(self, row: str, column: str) -> float | None:
        """The median of a cell in multiples of its base; None where one of them is not there."""
        base = self.middle(self.base_row or row, self.base_column or column)
        middle = self.middle(row, column)
        return middle / base if middle is not None and base else None

    def unit_of(self, column: str) -> str:
        """The unit of a column's samples."""
        return self.units.get(column, self.unit)


@dataclass
class Section:
    """Tables about one subject."""

    title: str
    text: str
    tables: list[Table]


def to_data(sections: Iterable[Section]) -> list[dict[str, Any]]:
    """Sections as JSON has them."""
    return [asdict(section) for section in sections]


def from_data(data: Iterable[Mapping[str, Any]]) -> list[Section]:
    """The sections of `to_data`."""
    return [
        Section(one["title"], one["text"], [Table(**table) for table in one["tables"]])
        for one in data
    ]


def shown(samples: Sequence[float], unit: str) -> str:
    """Median and spread, as in "1.23 s (1.10-1.50)"; a single sample without the spread."""
    if not samples:
        return "-"
    middle = statistics.median(samples)
    scale, unit = _scaled(middle, unit)
    texts = [_number(value * scale) for value in (middle, min(samples), max(samples))]
    spread = f" ({texts[1]}-{texts[2]})" if len(samples) > 1 else ""
    return f"{texts[0]} {unit}".rstrip() + spread


def times(ratio: float | None) -> str:
    """A ratio with the sign for it; "-" for none."""
    return "-" if ratio is None else f"{_number(ratio)} {TIMES}"


def _scaled(middle: float, unit: str) -> tuple[float, str]:
    if unit != "s" or middle >= 1:
        return 1, unit
    return (1e3, "ms") if middle >= 1e-3 else (1e6, "µs")


def _number(value: float) -> str:
    """Three digits that count."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
