"""`hostdev topology` on terminals of two widths and as a pipe."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, run
from tests.helpers.terminal import check_fits, on_a_terminal
from tests.topology.machines import deep, hostile, large

LAPTOP = Path(__file__).parents[1] / "machines" / "laptop.json"


@pytest.fixture
def laptop(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.replay(LAPTOP, tmp_path / "laptop")
    assert run("prepare", "vm1", "02:00.0", "1-7", *QEMU, host=host).returncode == 0
    return host


def test_a_narrow_terminal_has_the_tree_whole(laptop: SimulatedHost) -> None:
    shown = on_a_terminal("topology", host=laptop, columns=80)
    check_fits(shown, 80)
    assert shown.lines[0].split() == ["ADDRESS", "CLASS", "NAMES", "DRIVER", "GROUP", "STATE"]
    trees = [re.split(r"(?<=\w)  ", line)[0] for line in shown.lines]
    assert trees[1:6] == [
        "pci0000:00",
        "├ 0000:00:00.0",
        "├ 0000:00:01.0",
        "│ ├ 0000:01:00.0",
        "│ ├ 0000:01:00.1",
    ]
    assert "│       └ usb3" in trees
    assert "│         └ 3-1" in trees
    assert "└ 0000:00:1f.5" in trees
    assert len([line for line in shown.lines if line.endswith("lent to vm1 (qemu)")]) == 2
    assert "vm1 (qemu): 1-7, 0000:02:00.0" in shown.lines


def test_a_wide_terminal_has_every_device_by_name(laptop: SimulatedHost) -> None:
    shown = on_a_terminal("topology", host=laptop, columns=200)
    check_fits(shown, 200)
    assert "DEVICE" in shown.lines[0]


def test_a_pipe_has_everything_without_lines_of_a_tree(laptop: SimulatedHost) -> None:
    lines = run("topology", host=laptop).stdout.splitlines()
    assert lines[1].startswith("pci0000:00 ")
    assert lines[4].startswith("    0000:01:00.0 ")
    assert not [line for line in lines if "…" in line or "├" in line]
    headers = [*("ADDRESS", "CLASS", "NAMES", "DRIVER", "GROUP", "NUMA", "DEVICE", "STATE")]
    assert lines[0].split() == headers


@pytest.mark.parametrize("columns", [80, 200, 20])
@pytest.mark.parametrize("make", [hostile, large, deep])
def test_whatever_is_there_fits(
    tmp_path: Path, make: Callable[[Path], SimulatedHost], columns: int
) -> None:
    shown = on_a_terminal("topology", host=make(tmp_path / "host"), columns=columns)
    assert shown.code == 0
    check_fits(shown, columns)


def test_evidence_is_looked_for_where_it_is_asked_for(tmp_path: Path) -> None:
    host = large(tmp_path / "host")
    assert "  host\n" in run("topology", host=host).stdout
    assert "  available\n" in run("topology", "--all-facts", host=host).stdout


def test_a_terminal_without_letters_for_it_has_other_lines(laptop: SimulatedHost) -> None:
    shown = on_a_terminal("topology", host=laptop, columns=80, PYTHONIOENCODING="ascii")
    assert shown.raw.isascii()
    assert "| ` 0000:01:00.3" in [line[:16] for line in shown.lines]
