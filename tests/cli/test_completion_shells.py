"""Completion in the shells themselves: what is typed, with a TAB, is what the command gets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostdev_core import Domain
from hostdev_core.simulated import SimulatedHost
from tests.helpers.real_shells import SHELLS, Shell
from tests.sample import DISK, NIC, connect

DOMAIN = "it's my $HOME `x`"


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, host: SimulatedHost, tmp_path: Path) -> Iterator[Shell]:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain(DOMAIN, [NIC]))
    (tmp_path / "home").mkdir()
    shell = Shell(request.param, host, tmp_path / "home")
    yield shell
    shell.end()


@pytest.mark.quick_cases
def test_a_line_is_completed(shell: Shell) -> None:
    assert shell.run("hostdev dev\tdet\t02\t") == ["device", "detach", "02:00.0"]
    assert shell.run("hostdev show 0000:02\t") == ["show", DISK]
    assert shell.run("hostdev prepare vm1 02:\t--allow=in-\t") == [
        *("prepare", "vm1", "02:00.0"),
        "--allow=in-use",
    ]
    assert shell.run("hostdev --js\tsta\t") == ["--json", "status"]


@pytest.mark.quick_cases
def test_a_domain_of_any_name_is_one_word(shell: Shell) -> None:
    assert shell.run("hostdev reattach it\t") == ["reattach", DOMAIN]
    assert shell.run("hostdev reattach \"it's\t") == ["reattach", DOMAIN]


def test_the_program_may_be_named_by_its_path(shell: Shell, tmp_path: Path) -> None:
    for path in ("~/bin/hostdev", "bin/hostdev", f"{tmp_path}/home/bin/hostdev"):
        assert shell.run(f"{path} sho\t02\t") == ["show", "02:00.0"]


def test_files_are_the_shells_own(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "home" / "a machine.json").touch()
    assert shell.run("hostdev replay a\\ mach\t") == ["replay", "a machine.json"]


def test_the_line_names_the_host(shell: Shell, tmp_path: Path) -> None:
    other = SimulatedHost.create(tmp_path / "home" / "other")
    other.add_pci("0000:77:00.0")
    assert shell.run("hostdev --host other show 77\t") == ["--host", "other", "show", "77:00.0"]
