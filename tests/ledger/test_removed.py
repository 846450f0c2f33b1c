"""Somebody removes or spoils the state directory while a call is under way."""

import shutil
from itertools import count
from pathlib import Path

import pytest

from hostdev_core import Connection, Domain, HostdevError, Registry, hookimpl
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC


def remove_ledger(host: SimulatedHost) -> None:
    """At once: what others make there meanwhile is in nobody's way."""
    shutil.rmtree(Path(host.state_dir).rename(f"{host.state_dir}-removed"))


@pytest.mark.parametrize("moment", range(1, 7))
def test_a_prepare_whose_ledger_is_removed_is_undone(
    host: SimulatedHost, conn: Connection, moment: int
) -> None:
    """The devices are known to the call itself: override, unbind and bind of two of them."""
    before, writes = host.snapshot(), count(1)

    def remove(what: str) -> None:
        if what.startswith("before write") and next(writes) == moment:
            remove_ledger(host)

    host.watch(remove)
    with pytest.raises(HostdevError):
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_reattach_whose_ledger_is_removed_goes_on(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    writes = count(1)

    def remove(what: str) -> None:
        if what.startswith("before write") and next(writes) == 1:
            remove_ledger(host)

    host.watch(remove)
    assert conn.reattach_hostdevs("vm1") == (NIC, DISK)
    assert host.snapshot() == before


class Spoiler:
    """Puts a file in the place of the directory of operations."""

    @hookimpl
    def hostdev_after_prepare(self, conn: Connection) -> None:
        folder = Path(conn.host.state_dir, "op")
        shutil.rmtree(folder)
        folder.touch()


def test_what_was_lent_is_returned_although_its_operation_cannot_be_cleared_away(
    host: SimulatedHost, registry: Registry, conn: Connection
) -> None:
    registry.register(Spoiler())
    (assignment,) = conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert assignment.arguments
    assert [record.is_lent for record in host.ledger.records()] == [True]
