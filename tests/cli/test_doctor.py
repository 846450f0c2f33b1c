"""`hostdev doctor`: how findings are shown, and its exit codes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostdev_core.doctor.examine import CODES
from hostdev_core.simulated import SimulatedHost
from tests.doctor.changes import both, neighbours, put
from tests.doctor.hosts import SHOWN
from tests.helpers.cli_command import ask, clean_environment, run, run_as_nobody
from tests.helpers.terminal import on_a_terminal

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
LEVELS = ("problem", "note", "ok")


@pytest.fixture
def ill(host: SimulatedHost) -> SimulatedHost:
    """A host with a problem, several notes, and a text that is longer than a line."""
    for code in ("stub-disabled", "interrupt-remapping-off", "acs-overridden"):
        SHOWN[code][1](host)
    both(neighbours, put("etc/driverctl.d/pci-long", f"{'x' * 60}\x1b[2J\n"))(host)
    return host


def levels(text: str) -> Iterator[str]:
    return (line.split()[0] for line in text.splitlines() if line.startswith(LEVELS))


def test_a_host_that_is_well(host: SimulatedHost) -> None:
    done = run("doctor", host=host)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The IOMMU is on [iommu-on]" in done.stdout
    assert "2 of 2 devices can be lent alone [groups]" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("0 problems, ")


def test_problems_come_first_with_evidence_and_remedy(ill: SimulatedHost) -> None:
    done = run("doctor", host=ill)
    assert done.returncode == 6
    shown = [*levels(done.stdout)]
    assert shown == sorted(shown, key=LEVELS.index)
    assert shown.count("problem") == 2
    assert "mine.conf:1" in done.stdout
    assert "do: take that line or word away" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("columns", [30, 47, 80, 132])
def test_no_line_is_longer_than_the_terminal(ill: SimulatedHost, columns: int) -> None:
    shown = on_a_terminal("doctor", "-v", host=ill, columns=columns)
    assert max(map(len, shown.lines)) < columns
    words = re.sub(r"\s+(?:do: |- )?", "", "\n".join(shown.lines))
    assert "pcie_acs_override=downstream,multifunction" in words


def test_a_line_to_paste_is_not_broken_where_it_fits(ill: SimulatedHost) -> None:
    shown = run("doctor", host=ill).stdout
    (paste,) = (row for row in shown.splitlines() if "driverctl unset-override" in row)
    assert "`driverctl unset-override DEVICE`" in paste


def test_on_a_terminal_it_is_the_same_in_colours(ill: SimulatedHost) -> None:
    piped = run("doctor", host=ill, env=clean_environment())
    code, shown = on_a_terminal("doctor", host=ill)
    assert code == 6
    assert "\x1b[1;31mproblem" in shown
    assert "".join(ESCAPES.sub("", shown).split()) == "".join(piped.stdout.split())


def test_much_evidence_is_cut_short_for_people_alone(host: SimulatedHost) -> None:
    for number in range(9):
        put(f"etc/driverctl.d/pci-0000:0{number}:00.0", "vfio-pci\n")(host)
    assert "- and 3 more (-v shows all)" in run("doctor", host=host).stdout
    assert "more (-v" not in run("doctor", "-v", host=host).stdout
    found = {each["code"]: each for each in ask("doctor", host=host)["findings"]}
    assert len(found["driverctl-override"]["evidence"]) == 9


def test_json_has_findings_and_the_codes_of_problems(ill: SimulatedHost) -> None:
    done = run("doctor", "--json", host=ill)
    assert done.returncode == 6
    told = json.loads(done.stdout)
    assert {*told} == {"findings", "problems"}
    assert {*told["problems"]} == {"stub-disabled", "interrupt-remapping-off"}
    known = {code.name: str(code.level) for code in CODES}
    for each in told["findings"]:
        assert {*each} == {"code", "level", "title", "evidence", "remedy"}
        assert known[each["code"]] == each["level"]


def test_this_machine_as_nobody_ends_with_a_code_and_no_traceback() -> None:
    done = run_as_nobody("doctor", "--json")
    assert done.returncode in {0, 6}, done.stderr
    found = {each["code"] for each in json.loads(done.stdout)["findings"]}
    assert "not-root" in found
    assert "Traceback" not in done.stderr


def test_a_uri_is_checked_and_unused(host: SimulatedHost) -> None:
    assert run("doctor", "-c", "qemu:///system", host=host).returncode == 0
    assert run("doctor", "-c", "nonsense", host=host).returncode == 2


def test_nothing_is_written_anywhere(host: SimulatedHost) -> None:
    def files() -> dict[str, int]:
        found = (path for path in Path(host.root).rglob("*") if not path.is_symlink())
        return {str(path): path.stat().st_mtime_ns for path in found}

    before = files()
    run("doctor", host=host)
    assert files() == before
