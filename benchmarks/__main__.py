"""Measure, and print or write the report: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import bookkeeping, costs, lending, listing, machine, report, slow_kernel, tools
from benchmarks.results import Section, from_data, to_data
from benchmarks.turns import say


class Size(NamedTuple):
    """How much is measured."""

    cards: tuple[int, ...]
    devices: tuple[int, ...]
    records: tuple[int, ...]
    crowds: tuple[int, ...]
    cycles: int
    rounds: int
    guest_rounds: int
    nvme: bool
    xen: bool


SHORT = Size((1, 8), (6, 64, 1024), (10, 1000), (1, 4, 16), 1000, 5, 3, nvme=False, xen=False)
ALL = Size(
    (1, 2, 4, 8, 16), (6, 64, 256, 1024, 10_000), (10, 1000, 100_000), (1, 4, 16, 64), 10_000, 7, 4,
    nvme=True, xen=True,
)  # fmt: skip
DELAYED = (1, 8, 16)
Subject = Callable[[Size], list[Section]]
SUBJECTS: Mapping[str, Subject] = {
    "lending": lambda size: lending.measure(
        size.cards, size.guest_rounds, nvme=size.nvme, xen=size.xen
    ),
    "slow-kernel": lambda size: [slow_kernel.measure(DELAYED, size.rounds)],
    "listing": lambda size: [listing.measure(size.devices, size.rounds)],
    "bookkeeping": lambda size: [bookkeeping.measure(size.records, size.crowds, size.rounds)],
    "costs": lambda size: [costs.measure(size.cycles, size.rounds)],
}


def main(words: Sequence[str] | None = None) -> int:
    """Measure as told."""
    options = parser().parse_args(words)
    size = chosen(options)
    os.environ["HOSTDEV_DISABLE_PLUGINS"] = tools.optional_plugins()
    if options.draw:
        data = json.loads(options.draw.read_text())
        sections, facts, command = from_data(data["sections"]), data["facts"], data["command"]
    else:
        facts, command = machine.facts(), "make bench-all" if options.all else "make bench"
        started = time.monotonic()
        sections = [part for name in options.subjects or SUBJECTS for part in SUBJECTS[name](size)]
        facts["duration"] = f"{(time.monotonic() - started) / 60:.0f} minutes"
    if options.json:
        data = {"facts": facts, "command": command, "sections": to_data(sections)}
        options.json.write_text(json.dumps(data))
    if options.write:
        report.write(options.write, sections, facts, command)
        say(f"{options.write} is written")
    else:
        print(report.plain(sections))
    return 0


def parser() -> argparse.ArgumentParser:
    """The words that are understood."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__
    )
    add = found.add_argument
    add("subjects", nargs="*", metavar="SUBJECT", type=_subject, help=f"of {', '.join(SUBJECTS)}")
    add("--all", action="store_true", help="all numbers of devices, NVMe and Xen: takes hours")
    add("--rounds", type=_count, help="how often each thing is measured")
    add("--cards", type=_counts, help="how many cards are lent, as in 1,8")
    add("--devices", type=_counts, help="how many devices are listed")
    add("--cycles", type=_count, help="how often a card is lent and taken back in one process")
    add(
        "--write",
        type=Path,
        metavar="PAGE",
        help="write the page, and its picture, instead of printing",
    )
    add("--json", type=Path, metavar="FILE", help="keep all samples there, too")
    add(
        "--draw",
        type=Path,
        metavar="FILE",
        help="measure nothing: take the samples that --json kept",
    )
    return found


def chosen(options: argparse.Namespace) -> Size:
    """What the options ask for."""
    size = ALL if options.all else SHORT
    if options.rounds:
        size = size._replace(rounds=options.rounds, guest_rounds=options.rounds)
    told = {name: getattr(options, name) for name in ("cards", "devices", "cycles")}
    return size._replace(**{name: value for name, value in told.items() if value})


def _subject(text: str) -> str:
    if text not in SUBJECTS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(SUBJECTS)}")
    return text


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(word) for word in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
