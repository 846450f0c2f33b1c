"""A command that hostdev tells can be pasted into a shell, whatever a domain or a folder is called."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostdev_core import DeviceInUseError, Domain
from hostdev_core.cli.options import Options
from hostdev_core.cli.parser import parse
from hostdev_core.model.address import is_word
from hostdev_core.model.words import arguments, option
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import COMMAND, QEMU, run
from tests.sample import DISK, NIC, connect

names = st.text(min_size=1, max_size=40).filter(is_word)
hostile = [
    "my vm",
    "it's",
    '"quoted"',
    "$HOME",
    "`id`",
    "a;b",
    "--uuid",
    "-",
    "#",
    "~",
    "*",
    "!!",
    "\\",
    "ü",
]


def in_sh(command: str, folder: Path) -> list[str]:
    """The words that sh gives to a command named hostdev."""
    program = 'hostdev() { for word; do printf "%s\\0" "$word"; done; }\n'
    done = subprocess.run(
        ["sh", "-c", program + command], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


@given(name=names, device=names)
def test_a_reattach_is_read_as_it_was_meant(name: str, device: str) -> None:
    words = ("hostdev", "reattach", *arguments([name, device], ("--json",)))
    options = parse(shlex.split(shlex.join(words))[1:])
    assert (options.domain, options.devices, options.json) == (name, [device], True)


@given(name=names)
@example("-x")
def test_an_option_is_read_as_it_was_meant(name: str) -> None:
    options = Options()
    options.host = options.state_dir = name
    again = parse(shlex.split(shlex.join([*options.program, "list"]))[1:])
    assert (again.host, again.state_dir, again.program) == (name, name, options.program)
    assert option("--host", name)[0].startswith("--host")


@pytest.mark.quick_cases
@pytest.mark.parametrize("name", hostile)
def test_a_refusal_names_the_command_that_gives_the_device_back(
    host: SimulatedHost, name: str
) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain(name, [NIC]))
        with pytest.raises(DeviceInUseError) as refused:
            conn.prepare_hostdevs(Domain("another", [NIC]))
        match = re.search(r"`(hostdev reattach .*)` gives it back", str(refused.value))
        assert match
        words = in_sh(match[1], Path(host.root))
        options = parse(words)
        assert options.domain == name
        conn.reattach_hostdevs(options.domain)
    assert host.ledger.records() == []


@pytest.mark.parametrize("name", ["it's -x", "-x y", "$HOME `id`"])
def test_what_the_report_of_a_reattach_tells_gives_the_device_back(
    host: SimulatedHost, name: str
) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain(name, [NIC], uuid="5ca1ab1e-0000-4000-8000-000000000001"))
    told = run(*QEMU, "reattach", "vm2", NIC, host=host).stdout
    match = re.search(r"`(hostdev .*)`$", told, re.MULTILINE)
    assert match
    done = subprocess.run(
        ["sh", "-c", f'hostdev() {{ {shlex.join([*COMMAND, *QEMU])} "$@"; }}; {match[1]}'],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"{NIC} is given back\n", done.stderr
    assert host.ledger.records() == []


def test_a_folder_of_any_name(host: SimulatedHost, tmp_path: Path) -> None:
    assert run("capture", str(tmp_path / "file"), host=host).returncode == 0
    told = run("replay", str(tmp_path / "file"), "--", "-my 'machine'", cwd=tmp_path).stdout
    match = re.search(r"`(hostdev .*)`$", told)
    assert match, told
    assert DISK in run(*in_sh(match[1], tmp_path), cwd=tmp_path).stdout
