"""What the benchmarks are told, and that what they measure is what they say; no figure is looked at."""

import json
import re
import shlex
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import bookkeeping, costs, listing, slow_kernel, turns
from benchmarks.__main__ import chosen, parser
from benchmarks.results import Table
from hostdev_core import open_connection
from hostdev_core.cli import main as hostdev
from tests.docs.pages import ROOT


def words_of(target: str) -> list[str]:
    """What `make TARGET` hands to the benchmarks."""
    text = (ROOT / "Makefile").read_text()
    found = re.search(rf"^{target}:.*\n\t.+ -m benchmarks (.+)$", text, re.MULTILINE)
    assert found, target
    return shlex.split(re.sub(r"\$\(or \$\(ARGS\),(\d+)\)|\$\(ARGS\)", r"\1", found[1]))


def test_make_bench_and_make_bench_all_write_the_page() -> None:
    bench, everything = (parser().parse_args(words_of(name)) for name in ("bench", "bench-all"))
    assert bench.write == everything.write == Path("docs/performance.md")
    short, full = chosen(bench), chosen(everything)
    assert (max(short.cards), max(short.devices), short.cycles) == (8, 1024, 1000)
    assert full.cards == (1, 2, 4, 8, 16)
    assert (max(full.devices), max(full.records), full.cycles) == (10_000, 100_000, 10_000)
    assert (full.nvme, full.xen) == (True, True)


def test_make_bench_list_prints_the_listing_alone() -> None:
    options = parser().parse_args(words_of("bench-list"))
    assert (options.subjects, options.write) == (["listing"], None)
    assert chosen(options).devices == (1024,)


@pytest.mark.parametrize("words", [["nothing"], ["--rounds", "0"], ["--cards", "1,x"]])
def test_what_makes_no_sense_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words)
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err


def test_things_take_turns_after_a_first_one_that_does_not_count() -> None:
    order: list[str] = []
    works = {name: lambda name=name: float(order.append(name) or len(order)) for name in "ab"}
    assert turns.turns(works, 2) == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert order == [*"ab", *"ab", *"ba"]


def test_a_run_that_fails_is_no_figure() -> None:
    with pytest.raises(turns.subprocess.CalledProcessError) as raised:
        turns.run([sys.executable, "-c", "import sys; sys.exit('no such card')"])
    assert turns.reason(raised.value) == "exit 1: no such card"


def test_the_peak_of_a_command_is_its_own() -> None:
    small, large = (turns.peak([sys.executable, "-c", f"b'x' * {n}"]) for n in (1, 64 << 20))
    assert large - small > 50


def test_a_ledger_has_as_many_records_as_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = bookkeeping.host_with(str(tmp_path / "host"), 300)
    assert hostdev(["--host", str(host.root), "--json", "status"]) == 5
    assert len(json.loads(capsys.readouterr().out)["records"]) == 300
    with open_connection("qemu:///system", host=host) as conn:
        for call in (bookkeeping.card_trip, bookkeeping.stick_trip, bookkeeping.refused,
                     bookkeeping.of_domain):  # fmt: skip
            call(conn)
    with closing(sqlite3.connect(f"{host.state_dir}/state.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_bare_loop_sees_what_a_look_sees(tmp_path: Path) -> None:
    host = listing.machine(str(tmp_path / "host"), 40)
    with open_connection("qemu:///system", host=host) as conn:
        seen = sorted((d.name, d.kernel_driver, str(d.iommu_group)) for d in conn.list_devices())
    least = sorted((name, driver, group) for name, _, driver, group in
                   listing.bare_loop(f"{host.root}/sys/bus/pci/devices"))  # fmt: skip
    assert least == seen


def test_a_tool_that_does_not_list_all_has_a_note_and_no_figure() -> None:
    table = Table("", "", ["2 devices"])
    script = "print('0000:00:00.0 0000:00:00.0')"
    listing.take_turns(table, "2 devices", 2, {"tool": [sys.executable, "-c", script]}, 1, {})
    assert table.middle("tool", "2 devices") is None
    assert table.notes == {"tool": "lists 1 of 2 devices"}


def test_what_is_measured_with_a_slow_kernel_is_verified() -> None:
    section = slow_kernel.measure([2], 1)
    for table in section.tables:
        for row in table.rows:
            assert table.ratio(row, "2 devices") is not None
    assert section.tables[1].ratio("prepare", "2 devices") or 0 >= 1


def test_cycles_are_counted_and_leave_nothing() -> None:
    table = costs.many_cycles(20)
    for what in ("open descriptors", "threads"):
        assert len({table.middle(what, column) for column in table.columns}) == 1, what
