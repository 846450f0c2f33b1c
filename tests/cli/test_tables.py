"""Every command that prints tables, on terminals of 80 and 200 columns, and into a pipe."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, run
from tests.helpers.terminal import check_fits, check_headers, on_a_terminal, width_of

pytestmark = [pytest.mark.sample, pytest.mark.quick_cases]

DOMAIN = "a-domain-with-a-name-that-is-much-too-long-for-any-table-0017"
LIST = ["ADDRESS", "CLASS", "IDS", "DEVICE", "DRIVER", "GROUP", "NAMES", "STATE"]
STATUS = ["ADDRESS", "STATE", "STUB", "FOUND ON", "RETURNS", "SINCE"]
# Each command, its headers, and those that a terminal of 80 columns has no room for.
COMMANDS: dict[str, tuple[list[str], set[str]]] = {
    "list": (LIST, {"IDS"}),
    "list --groups": ([name for name in LIST if name != "GROUP"], {"IDS"}),
    "list --all-facts": ([*LIST[:-1], "NUMA", "STATE"], {"IDS", "NUMA"}),
    "list --columns state,pf,address --sort driver": (["STATE", "PF", "ADDRESS"], set()),
    "status": (STATUS, set()),
    "plugins": (["PLUGIN", "FROM", "DRIVERS", "URIS", "HOOKS"], set()),
}


@pytest.fixture
def full(host: SimulatedHost) -> SimulatedHost:
    """A machine with all that makes tables wide: long names, wide letters, escapes, reasons."""
    host.add_usb("1-4", id="ffff:0001", product="名前の長い日本語の装置" * 4, manufacturer="製造者")
    host.add_usb("1-5", id="ffff:0002", product="evil\x1b]0;x\x07 \x1b[2J\rname", serial="7" * 90)
    host.add_pci("10000:e1:00.0", kernel_driver="a_driver_with_a_very_long_name", iommu_group=4711)
    host.add_pci("0000:08:00.0", kernel_driver="vfio-pci", iommu_group=8)
    run(*QEMU, "prepare", DOMAIN, "01:00.0", "1-5", host=host)
    run(*QEMU, "device", "detach", "02:00.0", host=host)
    record = next(each for each in host.ledger.records() if each.address == "0000:01:00.0")
    with host.ledger.transaction() as transaction:
        transaction.update(record, record._replace(stuck="for a long reason " * 12))
    return host


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_fits_its_terminal(full: SimulatedHost, command: str, columns: int) -> None:
    shown = on_a_terminal(*command.split(), host=full, columns=columns)
    check_fits(shown, columns)
    headers, left_out = COMMANDS[command]
    wanted = [name for name in headers if columns > 80 or name not in left_out]
    check_headers(shown.lines, wanted)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_gets_the_table_whole(full: SimulatedHost, command: str) -> None:
    done = run(*command.split(), host=full)
    lines = done.stdout.splitlines()
    check_headers(lines, COMMANDS[command][0])
    assert "…" not in done.stdout
    assert not {"\x1b", "\x07", "\r"} & {*done.stdout}
    if command.startswith("status"):
        assert f"domain {DOMAIN} of qemu (qemu:///system)" in lines


@pytest.mark.parametrize("columns", [80, 200])
def test_show_fits_its_terminal(full: SimulatedHost, columns: int) -> None:
    shown = on_a_terminal("show", "*", host=full, columns=columns)
    check_fits(shown, columns)
    assert "for a long reason " * 3 in shown.text


@pytest.mark.parametrize("command", ["list", "status"])
@pytest.mark.parametrize("columns", [80, 200])
def test_a_long_reason_stands_below_the_table(
    full: SimulatedHost, command: str, columns: int
) -> None:
    shown = on_a_terminal(command, host=full, columns=columns)
    table, _, below = "\n".join(shown.lines).partition("\n\n")
    assert "long reason" not in table
    (row,) = (line for line in table.splitlines() if "0000:01:00.0" in line)
    assert "stuck" in row
    assert " ".join(below.split()).startswith(f"0000:01:00.0: stuck, for {DOMAIN} (qemu): for a ")
    assert shown.text.count("for a long reason") == 12


def test_the_cells_of_a_column_begin_below_its_header(full: SimulatedHost) -> None:
    """Also in the tree of groups, and behind letters that take two columns or are cut."""
    states = {"inactive", "available", "host", "stuck,", "stuck", "lent", "foreign:"}
    for words in (["list", "--groups"], ["list"], ["status"]):
        header, *lines = on_a_terminal(*words, host=full, columns=110).lines
        rows = [line for line in lines if re.match(r"(\W{4})?(0000:0.:00|1-[1-5] )", line)]
        table = [line for line in rows if not line.startswith("0000:01:00.0:")]
        assert len(table) > 1
        for line in table:
            assert _cell(line, header.index("STATE")).split(" ")[0] in states, line


def _cell(line: str, column: int) -> str:
    """What stands at a column, behind letters of one column or two."""
    return next((line[at:] for at in range(len(line)) if width_of(line[:at]) == column), "")


def test_the_important_end_of_a_name_stays(full: SimulatedHost) -> None:
    ids = Path(full.root, "usr/share/hwdata/pci.ids")
    ids.parent.mkdir(parents=True)
    ids.write_text(
        "10de  A Vendor With A Very Long Name\n\t2204  A Chip [Model 3090]\n"
        "8086  A Vendor With A Very Long Name\n\t10d3  Chip 82574L Gigabit Network Connection\n"
    )
    lines = on_a_terminal("list", host=full).lines
    shown = {line.split()[0]: line for line in lines if line.startswith("0000:0")}
    assert "3090]" in shown["0000:03:00.0"]
    assert "82574L  " in shown["0000:02:00.0"]
    full.add_pci("0000:09:00.0", kernel_driver="e1000e", iommu_group=9)
    run(*QEMU, "prepare", "web-frontend-of-the-shop-0017", "09:00.0", host=full)
    (row,) = (line for line in on_a_terminal("list", host=full).lines if "0000:09:" in line)
    assert "lent " in row
    assert row.endswith("0017 (qemu)")


def _words_of(lines: Sequence[str]) -> set[str]:
    return {word for line in lines for word in line.split()}


def test_messages_fit_the_terminal_and_are_one_line_elsewhere(full: SimulatedHost) -> None:
    shown = on_a_terminal("plan", "vm1", "03:00.0", host=full, columns=60)
    assert shown.code == 1
    check_fits(shown, 60)
    said = run("plan", "vm1", "03:00.0", host=full).stderr
    assert said.count("\n") == 1
    assert _words_of(shown.lines) >= {*said.split()}


def test_a_width_that_is_named_counts(full: SimulatedHost) -> None:
    """COLUMNS, as ncurses has it; a terminal of no size counts as one of 80."""
    narrow = on_a_terminal("list", host=full, columns=200, COLUMNS="72")
    assert max(map(width_of, narrow.lines)) <= 72
    unknown = on_a_terminal("list", host=full, columns=0)
    assert max(map(width_of, unknown.lines)) <= 80


def test_a_terminal_without_the_letters_of_a_tree_gets_others(full: SimulatedHost) -> None:
    shown = on_a_terminal("list", "--groups", host=full, PYTHONIOENCODING="latin-1")
    assert [line for line in shown.lines if line.startswith("`-- ")]
    assert "~" in shown.text
    assert not {"…", "├", "└"} & {*shown.text}
