"""The page and the picture that a run of the benchmarks writes, from figures that are known."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import chart, inside, lending, report
from benchmarks.results import TIMES, Section, Table, from_data, shown, times, to_data
from tests.kernel import lab

FLOOR, TOOL = inside.FLOOR_AT_ONCE, "a <tool> | another"
SVG = "{http://www.w3.org/2000/svg}"


def lines() -> list[dict[str, object]]:
    """What a guest prints: two rounds, a tool that is missing and one that fails with many cards."""
    found: list[dict[str, object]] = [{"way": "virsh", "cards": 0, "error": "no daemon"}]
    for more in (0, 1):
        for cards in (1, 8):
            found.append({"way": FLOOR, "cards": cards, "there": 0.1 + more, "back": 0.2 + more})
            found.append({"way": TOOL, "cards": cards, "there": 0.2 + 2 * more, "back": 2.0})
    return [*found, {"way": "slow", "cards": 8, "error": "not back"}]


@pytest.fixture
def sections() -> list[Section]:
    trial = lending.Trial("Cards", ("0000:01:00.0",), "e1000e", "vfio-pci", (1, 8), 2, "vfio-pci")
    return [Section("Lending", "All at once.", lending.tables(trial, lines()))]


def test_ratios_come_first_then_medians_with_their_spread(sections: list[Section]) -> None:
    text = report.plain(sections)
    cells = (f"1.00 {TIMES}", "600 ms (100-1,100)")
    ratios, medians = (text.index(f"| {FLOOR} | {cell}") for cell in cells)
    assert ratios < medians
    assert f"| a <tool> / another | 2.00 {TIMES} | 2.00 {TIMES} |" in text


def test_a_tool_without_figures_is_told_with_the_reason(sections: list[Section]) -> None:
    text = report.plain(sections)
    assert text.count("- virsh: failed: no daemon") == 2
    assert text.count("- slow: failed (8 cards): not back") == 2


def test_a_machine_that_does_not_boot_is_told_with_the_reason() -> None:
    def boot() -> Section:
        raise lab.LabError("the kernel lab needs these Debian packages: qemu-system-x86")

    told = report.section(lending.or_reason(lending.BARE, boot))
    assert "Not measured here: the kernel lab needs these Debian packages" in told


def test_the_page_has_all_and_its_picture(sections: list[Section], tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    report.write(page, sections, {"Python": "3.11"}, "make bench")
    text = page.read_text()
    assert text.startswith("# Performance\n")
    assert "`make bench`" in text
    assert "| Python | 3.11 |" in text
    (picture,) = re.findall(r"\]\((pictures/.+)\)", text)
    assert (tmp_path / picture).exists()
    assert report.plain(sections) in text


def test_the_picture_is_svg_with_a_bar_for_each_figure(sections: list[Section]) -> None:
    picture = chart.draw(sections)
    assert picture is not None
    tree = ElementTree.fromstring(picture)
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert {FLOOR, TOOL, "Cards, 8 cards"} <= {*texts}
    widths = {
        kind: [float(bar.get("width", 0)) for bar in tree.iter(f"{SVG}rect") if bar.get("class") == kind]
        for kind in ("there", "back")
    }  # fmt: skip
    _, floor, tool = widths["there"]
    assert tool == pytest.approx(2 * floor, rel=0.01)
    right = float(tree.get("viewBox", "").split()[2])
    bars = (float(bar.get("x", 0)) + float(bar.get("width", 0)) for bar in tree.iter(f"{SVG}rect"))
    assert max(bars) <= right
    assert "prefers-color-scheme: dark" in picture


def test_there_is_no_picture_without_lending() -> None:
    assert chart.draw([Section("Others", "", [Table("Costs", "", ["time"])])]) is None


def test_samples_can_be_kept_and_told_later(sections: list[Section]) -> None:
    assert report.plain(from_data(to_data(sections))) == report.plain(sections)


@pytest.mark.parametrize(
    ("samples", "unit", "text"),
    [
        ([], "s", "-"),
        ([0.0123], "s", "12.3 ms"),
        ([1.0, 2.0, 4.0], "s", "2.00 s (1.00-4.00)"),
        ([0.0000042], "s", "4.20 µs"),
        ([31.04], "MB", "31.0 MB"),
        ([9.996], "", "10.0"),
        ([1234.0], "", "1,234"),
    ],
)
def test_a_figure_has_three_digits_and_its_unit(samples: list[float], unit: str, text: str) -> None:
    assert shown(samples, unit) == text


def test_a_ratio_to_nothing_is_none() -> None:
    table = Table("", "", ["a", "b"], base_column="a")
    table.add("row", "b", 2.0)
    assert times(table.ratio("row", "b")) == "-"
    table.add("row", "a", 4.0)
    assert times(table.ratio("row", "b")) == f"0.50 {TIMES}"
