"""A large ledger gets indexes, when no operation lives; a call pays for its own records only."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hostdev_core import Domain, StateError, open_connection
from hostdev_core.ledger.store import Ledger
from hostdev_core.model.near import near_to
from hostdev_core.model.record import Phase
from hostdev_core.runtime.operation import Operation
from hostdev_core.simulated import SimulatedHost
from tests.helpers.many_records import fill, others
from tests.sample import NIC

pytestmark = pytest.mark.sample


def version(ledger: Ledger) -> int:
    with closing(sqlite3.connect(ledger.path)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found


def test_a_device_is_lent_and_given_back_beside_many_others(host: SimulatedHost) -> None:
    before = host.snapshot()
    fill(host.ledger, 500)
    assert version(host.ledger) == 1
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert version(host.ledger) == 2
        assert len(host.ledger.records()) == 501
        assert [device.name for device in conn.get_domain_active_pci_hostdev_list("vm1")] == [NIC]
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == [*others(500)]


def test_a_small_one_stays_as_earlier_versions_know_it(host: SimulatedHost) -> None:
    fill(host.ledger, 20)
    fill(Ledger(host.state_dir), 0)
    assert version(host.ledger) == 1


def test_no_index_is_made_beside_a_process_that_may_not_know_it(host: SimulatedHost) -> None:
    fill(host.ledger, 500)
    with Operation.start(host.state_dir, "prepare vm3") as operation:
        with host.ledger.transaction() as transaction:
            assert transaction.take(next(others(1)), Phase.RELEASING, operation.id)
        # The transaction that noted the operation found none, and made them: of the next large one it counts.
        assert version(host.ledger) == 2
        with closing(sqlite3.connect(host.ledger.path, isolation_level=None)) as connection:
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
            ).fetchall():
                connection.execute(f"DROP INDEX {name}")
            connection.execute("PRAGMA user_version = 1")
        with host.ledger.transaction():
            pass
        assert version(host.ledger) == 1
    with host.ledger.transaction():
        pass
    assert version(host.ledger) == 2


def test_each_question_is_answered_by_an_index(host: SimulatedHost) -> None:
    fill(host.ledger, 500)
    wanted = near_to([*others(3)])
    plans: list[str] = []

    def explain(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            for condition in ("op = 'x'", "owner_domain = 'vm1'", "iommu_group = 3"):
                sql = f"EXPLAIN QUERY PLAN SELECT * FROM records WHERE {condition}"
                plans.extend(row[3] for row in connection.execute(sql))

    with host.ledger.transaction() as transaction:
        assert [*transaction.near(wanted).values()] == [*others(3)]
    explain(Path(host.ledger.path))
    assert len(plans) == 3
    assert all("USING INDEX" in plan for plan in plans)


def test_an_index_of_somebody_else_is_refused(host: SimulatedHost) -> None:
    fill(host.ledger, 3)
    with closing(sqlite3.connect(host.ledger.path)) as connection:
        connection.execute("CREATE INDEX mine ON records (usb)")
    content = Path(host.ledger.path).read_bytes()
    with pytest.raises(StateError, match="something else than hostdev's table"):
        host.ledger.records()
    assert Path(host.ledger.path).read_bytes() == content
