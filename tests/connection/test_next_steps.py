"""A refusal names what to do next, and that does it."""

import os
import re
import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    HostdevError,
    KernelTimeoutError,
    NotAssignableError,
    Registry,
    StateError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.sample import DISK, NIC

STICK, ODD = "1-4", "0000:09:00.0"


def command_in(text: str) -> list[str]:
    """The words of the one command that a message names, without `hostdev`."""
    (command,) = re.findall("`([^`]+)`", text)
    first, *words = shlex.split(command)
    assert first == "hostdev"
    return words


@pytest.mark.long
def test_what_keeps_a_device_from_going_to_the_host(host: SimulatedHost, conn: Connection) -> None:
    found = host.snapshot()
    conn.prepare_hostdevs(Domain("my vm", [NIC]))
    conn.detach_device(DISK)
    for name in (NIC, DISK):
        refused = run("device", "reattach", "--to-host", name, host=host)
        assert refused.returncode == 1
        assert run(*command_in(refused.stderr), host=host).returncode == 0
    assert host.snapshot() == found
    assert host.ledger.records() == []


def test_what_keeps_a_device_from_the_next_domain(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with pytest.raises(DeviceInUseError) as raised:
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
    assert run(*command_in(str(raised.value)), host=host).returncode == 0
    conn.prepare_hostdevs(Domain("vm2", [NIC]))


@pytest.mark.parametrize("stuck", [None, "the bind failed"])
def test_a_lent_one_is_not_given_back_as_a_detached_one(
    host: SimulatedHost, conn: Connection, stuck: str | None
) -> None:
    conn.prepare_hostdevs(Domain("my vm", [NIC]))
    (record,) = host.ledger.records()
    with host.ledger.transaction() as transaction:
        transaction.update(record, record._replace(stuck=stuck))
    refused = run("device", "reattach", NIC, host=host)
    assert run(*command_in(refused.stderr), host=host).returncode == 0
    assert host.ledger.records() == []


def test_an_unknown_header_type(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci(ODD, class_="068000", iommu_group=9, header_type=5)
    with pytest.raises(NotAssignableError) as raised:
        conn.plan(Domain("vm1", [ODD]))
    assert raised.value.rule == "header-type"
    for word in (f"lspci -xxx -s {ODD}", "dmesg", "turn the machine off and on"):
        assert word in str(raised.value)


@pytest.mark.parametrize("name", [STICK, NIC])
def test_a_device_that_does_not_answer(host: SimulatedHost, registry: Registry, name: str) -> None:
    host.add_usb(STICK, serial="60A4")
    short = Deadlines(attribute=0.3)
    with (
        open_connection("qemu:///system", host=host, registry=registry, deadlines=short) as conn,
        host.hold_lock(name),
        pytest.raises(KernelTimeoutError) as raised,
    ):
        conn.prepare_hostdevs(Domain("vm1", [name]))
    for word in ("does not answer", "nothing was changed", "dmesg", "reboot"):
        assert word in str(raised.value)
    assert ("unplug it" in str(raised.value)) == (name == STICK)


def test_an_empty_ledger_is_nobodys(host: SimulatedHost, conn: Connection) -> None:
    """Nothing is lost by what is done about it, and what it held is found again on the stubs."""
    found = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    ledger = Path(host.ledger.path)
    ledger.write_bytes(b"")
    journal = Path(f"{ledger}-journal")
    journal.write_bytes(b"a page of it")
    for call in (
        lambda: conn.prepare_hostdevs(Domain("vm2", [DISK])),
        lambda: conn.reattach_hostdevs("vm1"),
        conn.reload,
    ):
        with pytest.raises(StateError, match="is empty, which hostdev never leaves it"):
            call()
    said = run("status", host=host)
    assert said.returncode == 1
    assert "schema version" not in said.stderr
    assert (ledger.read_bytes(), journal.read_bytes()) == (b"", b"a page of it")
    journal.unlink()
    (move,) = re.findall(r"move it away: (mv \S+ [^;\s]+);", said.stderr)
    subprocess.run(shlex.split(move), check=True)
    said = run("status", host=host)
    assert run(*command_in(said.stderr), host=host).returncode == 0
    assert host.snapshot() == found
    conn.prepare_hostdevs(Domain("vm2", [DISK]))


def test_a_database_of_somebody_elses_is_not_called_a_hostdevs(
    host: SimulatedHost, conn: Connection
) -> None:
    os.makedirs(host.state_dir, mode=0o700)
    with closing(sqlite3.connect(host.ledger.path)) as other:
        other.execute("CREATE TABLE mine (it)")
        other.commit()
    os.chmod(host.ledger.path, 0o600)
    before = Path(host.ledger.path).read_bytes()
    with pytest.raises(HostdevError, match="holds something else than hostdev's table"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert Path(host.ledger.path).read_bytes() == before
