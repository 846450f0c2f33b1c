"""A process that is out of threads: a call says so, and nothing is lost."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hostdev_core import Connection, Domain, ReattachError, StateError
from hostdev_core.simulated import SimulatedHost
from tests.flow.workers import DISK, NIC


@contextmanager
def no_threads() -> Generator[None]:
    """Each new thread asks for a stack that no machine has."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_prepare_without_threads_changes_nothing(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    with no_threads(), pytest.raises(StateError, match=f"nothing was done about {NIC}.*thread"):
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_reattach_without_threads_says_so_for_each_device(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    lent = host.snapshot()
    with no_threads(), pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    assert len(raised.value.exceptions) == 2
    assert all("thread" in str(error) for error in raised.value.exceptions)
    assert host.snapshot() == lent
    assert [record.phase for record in host.ledger.records()] == ["active", "active"]
    assert conn.reattach_hostdevs("vm1") == (NIC, DISK)  # the groups were let go
    assert host.snapshot() == before
    assert host.ledger.records() == []
