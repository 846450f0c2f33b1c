"""`hostdev topology`: what hangs on what, and who has it. Opens no connection and loads no plugin."""

from hostdev_core.cli import picture_files
from hostdev_core.cli.commands.list_devices import absent_of, remark
from hostdev_core.cli.layout import Column
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit, emit_json, is_terminal, prose, table
from hostdev_core.errors import InputError
from hostdev_core.facts.facts import Facts
from hostdev_core.topology.labels import counts_of, loans_of, rows_of
from hostdev_core.topology.tree import read_topology

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hostdev_core.topology.labels import Row
    from hostdev_core.topology.tree import Topology

_WHOLE = 1000  # the tree is not cut, unless nothing else helps
_COLUMNS = (
    Column("ADDRESS", _WHOLE, "end"),
    Column("CLASS", 11),
    Column("NAMES", optional=True),
    Column("DRIVER", 8),
    Column("GROUP"),
    Column("NUMA", optional=True),
    Column("DEVICE", 18, optional=True),
    Column("STATE", 18, "both", is_state=True),
)


def run(options: Options) -> int:
    """Show the tree, or write its pictures."""
    files = [path for path in (options.svg, options.html) if path is not None]
    if files.count("-") + options.json > 1:
        raise InputError("standard output takes one: a picture, or the document of --json")
    if len({*files}) < len(files):
        raise InputError(f"--svg and --html both name {files[0]}; name two files")
    for path in files:
        from hostdev_core.topology.svg import SIGN

        picture_files.check_free(path, SIGN)
    facts = Facts.of(open_host(options), texts=True)
    if options.all_facts:
        facts.look_closely(facts.inventory.devices)
    absent = absent_of(facts)
    topology = read_topology(facts, [described for _, described in absent])
    _write(options, topology)
    if options.json:
        emit_json(_document(facts, topology))
        return 0
    if files:
        written = [path for path in files if path != "-"]
        emit("\n".join(f"{path}: {counts_of(topology)}" for path in written))
    else:
        _show(topology)
    remark(facts, [device for device in topology.devices if "ids" in device], absent)
    return 0


def _write(options: Options, topology: "Topology") -> None:
    if options.svg is not None:
        from hostdev_core.topology import svg

        picture_files.write(options.svg, svg.draw(topology))
    if options.html is not None:
        from hostdev_core.topology import page

        picture_files.write(options.html, page.draw(topology))


def _document(facts: Facts, topology: "Topology") -> dict[str, object]:
    return {
        "tree": [root.describe() for root in topology.roots],
        "borrowers": topology.borrowers,
        "ledger_error": facts.inventory.unread,
    }


def _show(topology: "Topology") -> None:
    rows = rows_of(topology)
    if not rows:
        return
    guides = [*_guides(rows)] if is_terminal() else ["  " * row.depth for row in rows]
    lines = [_cells(row, guide) for row, guide in zip(rows, guides, strict=True)]
    columns = [*range(len(_COLUMNS))]
    if is_terminal():  # without those that have nothing to show
        columns = [at for at in columns if any(line[at] != "-" for line in lines)]
    cells = [[line[at] for at in columns] for line in lines]
    table([_COLUMNS[at] for at in columns], [("", cells)])
    if loans := loans_of(topology):
        prose(["", *loans])


def _cells(row: "Row", guide: str) -> "Sequence[str]":
    label = row.label
    shown = (label.what, label.names, label.kernel_driver, label.group, label.numa, label.model)
    return [guide + label.address, *(text or "-" for text in (*shown, label.state))]


def _guides(rows: "Sequence[Row]") -> "Iterator[str]":
    """The lines of the tree before each row."""
    ended: list[bool] = []  # of the rows above that this one hangs below: whether each was the last
    for row in rows:
        ended[row.depth :] = [row.is_last]
        if row.depth == 0:
            yield ""
        else:
            lines = ("  " if last else "│ " for last in ended[1:-1])
            yield "".join(lines) + ("└ " if row.is_last else "├ ")
