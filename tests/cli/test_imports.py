"""What the commands load, the worker included: how long one takes is mostly that."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick_cases

# Runs the command, and writes the name of each module that it or its worker looks for into a file.
PROGRAM = """
import sys

class Teller:
    def find_spec(self, name, path=None, target=None):
        with open(sys.argv[1], "a") as file:
            print(name, file=file)

sys.meta_path.insert(0, Teller())
from hostdev_core.cli import main
main(sys.argv[2:])
"""
ABSENT = "ffff:ff:1f.7"
# Parsers of mail and archives come with importlib.metadata, a new interpreter with multiprocessing.
HEAVY = {
    *("importlib.metadata", "email", "csv", "zipfile", "tempfile", "rich", "pyudev", "asyncio"),
    *("multiprocessing", "pkg_resources", "unittest", "difflib", "hostdev_core.simulated"),
    *("hostdev_core.testing", "hostdev_core.worker.interpreter", "hostdev_core.worker.call_data"),
}
PLANNING, LENDING = "hostdev_core.planning.planner", "hostdev_core.lending."
# The words, what is to be loaded (else the test would see nothing), and what is not.
COMMANDS = {
    "status": (
        (),
        "hostdev_core.cli.commands.status",
        {"attr", "attrs", "pluggy", "logging", "shutil"},
    ),
    "explain": (
        ("--error", f"vfio {ABSENT}: group 7 is not viable"),
        "hostdev_core.known_errors.reading",
        {"attr", "attrs", "pluggy", "logging", "shutil"},
    ),
    "metrics": (
        (),
        "hostdev_core.watching.metrics",
        {"attr", "attrs", "pluggy", "logging", "shutil", "hostdev_core.watching.watch"},
    ),
    "topology": (
        (),
        "hostdev_core.topology.tree",
        {"attr", "attrs", "pluggy", "shutil", "html", "hostdev_core.topology.svg"},
    ),
    "plan": (("vm1", ABSENT), PLANNING, {LENDING}),
    "reattach": (
        ("vm1",),
        f"{LENDING}reattach",
        {PLANNING, *(f"{LENDING}{name}" for name in ("prepare", "claim", "reset", "to_host"))},
    ),
    "prepare": (
        ("vm1", ABSENT),
        f"{LENDING}prepare",
        {f"{LENDING}{name}" for name in ("reattach", "reset", "to_host")},
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_loads_no_more_than_it_needs(tmp_path: Path, command: str) -> None:
    """On this machine: nothing is lent, and no record is there, so that all but `prepare` only look."""
    words, needed, more = COMMANDS[command]
    uri = (
        () if command in {"status", "explain", "metrics", "topology"} else ("-c", "qemu:///system")
    )
    place = ("--state-dir", tmp_path / "state")
    subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "looked", *place, command, *uri, *words],
        capture_output=True,
        check=True,
        timeout=60,
    )
    looked = (tmp_path / "looked").read_text().split()
    assert needed in looked
    assert not [
        name for name in looked if any(f"{name}.".startswith(p) for p in _prefixes(HEAVY | more))
    ]


@pytest.mark.parametrize("line", ["dev", "show 0000", "reattach ", "-c ", "plan vm1 1-3 --allow "])
def test_a_tab_loads_no_plugin_and_little_else(tmp_path: Path, line: str) -> None:
    """Its person waits."""
    line = f"hostdev --state-dir {tmp_path / 'state'} {line}"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "looked",
         *("completion", "--line", "bash", line, "", "", "")],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    looked = (tmp_path / "looked").read_text().split()
    assert "hostdev_core.cli.completion" in looked
    unwanted = {"attr", "attrs", "pluggy", "logging", "shutil", "pathlib", "hostdev_core.registry",
                "hostdev_core.connection", PLANNING, LENDING}  # fmt: skip
    assert not [
        name
        for name in looked
        if any(f"{name}.".startswith(p) for p in _prefixes(HEAVY | unwanted))
    ]


def _prefixes(names: set[str]) -> set[str]:
    return {f"{name.rstrip('.')}." for name in names}


GOES_ON = """
import sys, tempfile
from hostdev_core import Domain, open_connection
from hostdev_core.simulated import make_sample
host = make_sample(tempfile.mkdtemp(dir=sys.argv[1]) + "/host")
with open_connection("qemu:///system", host=host) as conn:
    before = {*sys.modules}
    conn.prepare_hostdevs(Domain("vm1", ["0000:01:00.0"]))
    conn.reattach_hostdevs("vm1")
    conn.detach_device("0000:01:00.0")
    conn.reset_device("0000:01:00.0")
    conn.reattach_device("0000:01:00.0")
    conn.recover()
print(*({*sys.modules} - before))
"""


def test_a_program_that_goes_on_has_loaded_what_lends_and_gives_back(tmp_path: Path) -> None:
    """An upgrade meanwhile must not mix two versions."""
    done = subprocess.run(
        [sys.executable, "-c", GOES_ON, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rooms = ("lending", "planning", "ledger", "inventory", "bus", "registry")
    later = done.stdout.split()
    assert not [
        name for name in later if name.startswith(tuple(f"hostdev_core.{r}" for r in rooms))
    ]
