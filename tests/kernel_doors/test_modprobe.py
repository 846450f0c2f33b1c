"""A modprobe that cannot be asked: the plan says what is not known, and nothing waits for ever."""

import os
from pathlib import Path

import pytest

from hostdev_core import Domain, Host, open_connection
from hostdev_core.simulated import SimulatedHost
from tests.helpers.modules import NIC, make_host
from tests.sample import make_registry


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    """A kernel whose modules are where nothing but modprobe knows."""
    host = make_host(tmp_path / "machine")
    os.rename(host.path("lib/modules"), host.path("elsewhere"))
    return host


def put_first(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PATH find this modprobe first."""
    folder.mkdir()
    (folder / "modprobe").write_text(program)
    (folder / "modprobe").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def warnings(host: SimulatedHost) -> str:
    """What the doors of a real machine say; a simulated host asks no program."""
    real = Host(host.root)
    with open_connection(
        "qemu:///system", host=real, registry=make_registry(), read_only=True
    ) as conn:
        return "\n".join(conn.plan(Domain("vm1", [NIC])).warnings)


def test_a_program_that_does_not_start(
    host: SimulatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_first("\0", tmp_path / "bin", monkeypatch)
    said = warnings(host)
    assert "has module vfio-pci cannot be known: modprobe cannot be asked (Exec format" in said
    assert f"whether there is a variant driver for {NIC} cannot be known" in said


@pytest.mark.long  # no shorter one: it takes the twenty seconds that a question may take
def test_a_program_that_does_not_answer(
    host: SimulatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_first("#!/bin/sh\nexec sleep 1000\n", tmp_path / "bin", monkeypatch)
    known, said = Host(host.root).modules.find("vfio_pci")
    assert (known, said) == (None, "modprobe cannot be asked (no answer within 20 s)")
