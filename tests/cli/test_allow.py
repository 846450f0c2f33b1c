"""`--allow RULE` passes the refusals of that rule, for a domain and for one device."""

import os
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, ask, run
from tests.sample import NIC

PLUGIN = """
from hostdev_core import Refusal, hookimpl

@hookimpl
def hostdev_check(devices):
    return [Refusal(rule, d.name, "no", ("a", "b")) for d in devices for rule in ("one", "two")]
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which a plugin is installed that refuses everything by two rules."""
    (tmp_path / "refusing.py").write_text(PLUGIN)
    info = tmp_path / "refusing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: refusing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hostdev]\nrefusing = refusing\n")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("words", [("prepare", "vm1", NIC), ("device", "detach", NIC)])
def test_each_rule_has_to_be_named(
    host: SimulatedHost, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    before = host.snapshot()
    done = run(*QEMU, *words, "--allow", "one", host=host, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"hostdev: {NIC}: no (a; b) [two]\n  to pass it: --allow two\n"
    assert host.snapshot() == before
    done = run(*QEMU, *words, "--allow", "one", "--allow", "two", host=host, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = ask("status", host=host)["records"]
    assert record["allowed"] == ["one", "two"]


def test_a_reset_takes_it_too(host: SimulatedHost, environment: dict[str, str]) -> None:
    assert run(*QEMU, "device", "detach", NIC, host=host).returncode == 0
    words = ("device", "reset", NIC, "--allow", "two")
    done = run(*QEMU, *words, host=host, env=environment)
    assert (done.returncode, done.stderr) == (
        1,
        f"hostdev: {NIC}: no (a; b) [one]\n  to pass it: --allow one\n",
    )
    assert not [path for path, _ in host.writes() if path.endswith("/reset")]
    done = run(*QEMU, *words, "--allow", "one", host=host, env=environment)
    assert (done.returncode, done.stdout) == (0, f"{NIC} was reset\n")
