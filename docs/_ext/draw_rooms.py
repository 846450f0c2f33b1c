"""Draw the rooms of hostdev_core, from its imports; `python docs/_ext/draw_rooms.py` writes the drawing anew.

A room is a package of hostdev_core or a module beside them; they stand in the order in which
`[tool.importlinter]` has them. An arrow says that a room imports another one; one that follows from
others is left out. Imports for type checkers and those that import-linter ignores are no arrows.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"
PACKAGE = "hostdev_core"
Arrows = dict[str, set[str]]

# Shown below a room's name; a room without an entry here is an error.
WORDS = {
    "testing": "for authors of backends",
    "cli": "the command",
    "opening": "find driver and host",
    "connection": "the driver in its slot",
    "calls": "calls of a connection",
    "worker": "a process of its own",
    "local_driver": "what a backend overrides",
    "lending": "changes",
    "topology": "what hangs on what",
    "facts": "what is told of a device",
    "planning": "decisions",
    "doctor": "the host as a whole",
    "registry": "plugins, hooks, URIs",
    "this_machine": "or the simulated one",
    "simulated": "a machine in a directory",
    "driver": "the draft's interface",
    "hookspecs": "what plugins may have",
    "watching": "events, figures",
    "inventory": "looks that change nothing",
    "host": "the doors, passed down",
    "ledger": "records in SQLite",
    "bus": "PCI, USB",
    "runtime": "threads, signals, locks",
    "kernel": "doors to the machine",
    "backend": "a backend, checked",
    "checks": "of what drivers answer",
    "known_errors": "messages, explained",
    "model": "values",
    "errors": "all that is raised",
}
WIDTH, BOX, LANE, GAP = 860, (176, 44), 16, 22
STEP, TOP = 76, 24


class Place(NamedTuple):
    """A box of a row, or the point at which an arrow to a lower box passes the row; `x` is its middle."""

    room: str
    is_box: bool
    x: float = 0.0

    @property
    def width(self) -> int:
        return BOX[0] if self.is_box else LANE


def settings() -> dict[str, Any]:
    """Read import-linter's contract about the rooms."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return next(each for each in contracts if each["containers"] == [PACKAGE])


def read_arrows(contract: Mapping[str, Any]) -> Arrows:
    """Read which room imports which."""
    ignored = {tuple(line.split(" -> ")) for line in contract["ignore_imports"]}
    arrows: Arrows = {room: set() for room in contract["layers"]}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        room = module.split(".")[1]
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            other = name.split(".")[1] if name.startswith(f"{PACKAGE}.") else room
            if other != room and other in arrows and (module, name) not in ignored:
                arrows[room].add(other)
    return arrows


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports when it runs."""
    if isinstance(tree, ast.If) and re.fullmatch(r"(\w+\.)?TYPE_CHECKING", ast.unparse(tree.test)):
        tree = ast.Module(tree.orelse, [])
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    if isinstance(tree, ast.ImportFrom) and tree.module:
        is_whole = tree.module == PACKAGE
        yield from (f"{PACKAGE}.{alias.name}" for alias in tree.names if is_whole)
        yield tree.module
    for child in ast.iter_child_nodes(tree):
        yield from imports(child)


def reduce(arrows: Arrows) -> Arrows:
    """Leave out each arrow whose end is reached by another way, too."""
    return {
        room: {
            end
            for end in ends
            if not any(end in reached_from(other, arrows) for other in ends - {end})
        }
        for room, ends in arrows.items()
    }


def reached_from(room: str, arrows: Arrows) -> set[str]:
    """All rooms that a room imports, through others too."""
    found: set[str] = set()
    todo = [room]
    while todo:
        for end in arrows[todo.pop()] - found:
            found.add(end)
            todo.append(end)
    return found


def rows_of(rooms: Sequence[str], arrows: Arrows) -> list[list[str]]:
    """Put rooms that follow each other, and of which none imports another one, into one row."""
    rows: list[list[str]] = []
    for room in rooms:
        if not rows or any(room in reached_from(other, arrows) for other in rows[-1]):
            rows.append([])
        rows[-1].append(room)
    return rows


def layout(rows: Sequence[Sequence[str]], arrows: Arrows) -> list[list[Place]]:
    """Place the boxes of each row, and the arrows that pass it on their way to lower rows."""
    placed: list[list[Place]] = []
    passing: dict[str, list[float]] = {}  # where the arrows to each room come from in the row above
    for row in rows:
        coming, passing = passing, {}
        places = [Place(room, is_box=True, x=_mean(coming.pop(room, []))) for room in row]
        places += (Place(room, is_box=False, x=_mean(xs)) for room, xs in coming.items())
        placed.append(done := _spread(places))
        for place in done:
            ends = arrows[place.room] if place.is_box else {place.room}
            for end in sorted(ends):
                passing.setdefault(end, []).append(place.x)
    return placed


def _mean(xs: Sequence[float]) -> float:
    return sum(xs) / len(xs) if xs else WIDTH / 2


def _spread(places: Sequence[Place]) -> list[Place]:
    """Move places apart that overlap; boxes keep their order, arrows pass where they come from."""
    boxes = [place for place in places if place.is_box]
    order = list(boxes)
    for lane in sorted((p for p in places if not p.is_box), key=lambda place: place.x):
        middle = sum(box.x for box in boxes) / len(boxes)
        order.insert(len(order) if lane.x >= middle else order.index(boxes[0]), lane)
    total = sum(place.width for place in order) + GAP * (len(order) - 1)
    left = sum(box.x for box in boxes) / len(boxes) - _offset(order)
    left = max(GAP, min(left, WIDTH - GAP - total))
    spread: list[Place] = []
    for place in order:
        spread.append(place._replace(x=left + place.width / 2))
        left += place.width + GAP
    return spread


def _offset(order: Sequence[Place]) -> float:
    """How far right of a row's beginning the middle of its boxes is."""
    ends: list[float] = []
    at = 0.0
    for place in order:
        if place.is_box:
            ends += (at, at + place.width)
        at += place.width + GAP
    return (ends[0] + ends[-1]) / 2


def draw() -> str:
    """The drawing, as SVG."""
    contract = settings()
    arrows = read_arrows(contract)
    rows = layout(rows_of(contract["layers"], arrows), kept := reduce(arrows))
    height = TOP * 2 + STEP * (len(rows) - 1) + BOX[1]
    lines = [HEAD.format(width=WIDTH, height=height, right=WIDTH - 2, bottom=height - 2)]
    for y, (upper, lower) in enumerate(pairwise(rows)):
        lines += _arrows(TOP + STEP * y, upper, lower, kept)
    for y, row in enumerate(rows):
        lines += (_box(place, TOP + STEP * y) for place in row if place.is_box)
    return "\n".join([*lines, "</svg>", ""])


def _arrows(
    y: float, upper: Sequence[Place], lower: Sequence[Place], kept: Arrows
) -> Iterator[str]:
    """The parts of arrows between two rows, of which the upper one begins at `y`."""
    for place in upper:
        ends = kept[place.room] if place.is_box else {place.room}
        for end in (each for each in lower if each.room in ends):
            top, bottom = y + BOX[1], y + STEP
            half = (top + bottom) / 2
            kind = "way" if end.is_box else "pass"
            down = "" if end.is_box else f"V{bottom + BOX[1]:.0f}"
            yield (
                f'  <path class="{kind}" d="M{place.x:.0f} {top:.0f}C{place.x:.0f} {half:.0f}'
                f' {end.x:.0f} {half:.0f} {end.x:.0f} {bottom - 2 * end.is_box:.0f}{down}"/>'
            )


def _box(place: Place, y: float) -> str:
    is_package = (ROOT / PACKAGE / place.room).is_dir()
    name = f"{place.room}/" if is_package else f"{place.room}.py"
    kind = "package" if is_package else "module"
    return (
        f'  <rect class="{kind}" x="{place.x - BOX[0] / 2:.0f}" y="{y}" width="{BOX[0]}"'
        f' height="{BOX[1]}" rx="8"/>\n'
        f'  <text class="mid b" x="{place.x:.0f}" y="{y + 19}">{name}</text>\n'
        f'  <text class="mid s" x="{place.x:.0f}" y="{y + 35}">{WORDS[place.room]}</text>'
    )


HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
    width="{width}" height="{height}" role="img" aria-labelledby="t">
  <title id="t">The rooms of hostdev_core, from the top down: each imports only what stands below it</title>
  <style>
    text {{ font: 14px system-ui, "DejaVu Sans", sans-serif; fill: #1f2328; }}
    .b {{ font-weight: 600; }}
    .s {{ font-size: 12px; fill: #59636e; }}
    .mid {{ text-anchor: middle; }}
    .card {{ fill: #f6f8fa; stroke: #d1d9e0; }}
    .package {{ fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5; }}
    .module {{ fill: #ffffff; stroke: #59636e; stroke-width: 1.5; }}
    .pass {{ fill: none; stroke: #59636e; stroke-width: 1.5; }}
    .way {{ fill: none; stroke: #59636e; stroke-width: 1.5; marker-end: url(#tip); }}
  </style>
  <defs>
    <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
      <path d="M0 0 8 4 0 8z" fill="#59636e"/>
    </marker>
  </defs>
  <rect class="card" x="1" y="1" width="{right}" height="{bottom}" rx="8"/>"""

if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
