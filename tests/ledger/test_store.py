import os
import threading
from pathlib import Path

import pytest

from hostdev_core import StateError, UsedBy
from hostdev_core.ledger.store import Ledger
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.simulated import SimulatedHost

pytestmark = pytest.mark.quick_cases

OWNER = UsedBy("vm1", "qemu", "qemu:///system")
RECORD = Record(
    "pci",
    "0000:01:00.0",
    Phase.PREPARING,
    "qemu",
    op="1",
    owner=OWNER,
    confirmed=True,
    found=Found("e1000e"),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "odd %?# name"))


def test_reading_makes_nothing(ledger: Ledger) -> None:
    assert ledger.records() == []
    assert not os.path.exists(ledger.directory)


def test_a_transaction_is_all_or_nothing(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.transaction() as transaction:  # noqa: PT012
        transaction.insert(RECORD)
        raise ZeroDivisionError
    assert ledger.records() == []
    with ledger.transaction() as transaction:
        transaction.insert(RECORD)
        transaction.insert(RECORD._replace(kind="usb", address="1-1"))
    assert ledger.records() == [RECORD, RECORD._replace(kind="usb", address="1-1")]


@pytest.mark.parametrize(
    "bad",
    [
        RECORD._replace(steps='[["attach", "0000:01:00.0", [1]]]'),
        RECORD._replace(stub="../../etc"),
        RECORD._replace(backend=""),
        RECORD._replace(phase=Phase.RELEASING, confirmed=False),
        RECORD._replace(phase=Phase.ACTIVE, owner=None),
    ],
)
def test_what_could_not_be_read_back_is_not_written(ledger: Ledger, bad: Record) -> None:
    with pytest.raises(StateError, match="cannot be recorded"), ledger.transaction() as transaction:
        transaction.insert(bad)
    with ledger.transaction() as transaction:
        transaction.insert(RECORD)
    with pytest.raises(StateError, match="cannot be recorded"), ledger.transaction() as transaction:
        transaction.update(RECORD, bad)
    assert ledger.records() == [RECORD]


@pytest.mark.parametrize("name", ["18d1:4e22", "001:002", "usb1", "1-1:1.0", "../1-1"])
def test_a_usb_device_is_recorded_by_its_port(host: SimulatedHost, name: str) -> None:
    """Ids and numbers may mean another device by the time that it is given back."""
    record = RECORD._replace(kind="usb", address=name)
    with pytest.raises(StateError, match="cannot be recorded"), host.ledger.transaction() as now:
        now.insert(record)
    assert host.ledger.records() == []


def test_a_device_has_one_record(ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        transaction.insert(RECORD)
        with pytest.raises(StateError, match=RECORD.address):
            transaction.insert(RECORD)
    assert ledger.records() == [RECORD]


@pytest.mark.parametrize("change", [{"op": "2"}, {"op": None}, {"phase": Phase.RELEASING}])
def test_a_record_is_changed_only_by_who_has_it(ledger: Ledger, change: dict[str, object]) -> None:
    stale = RECORD._replace(**change)  # type: ignore[arg-type]
    with ledger.transaction() as transaction:
        transaction.insert(RECORD)
        assert not transaction.update(stale, stale._replace(stuck="x"))
        assert not transaction.delete(stale)
    assert ledger.records() == [RECORD]
    with ledger.transaction() as transaction:
        assert transaction.update(RECORD, RECORD._replace(op=None))
        assert transaction.delete(RECORD._replace(op=None))
    assert ledger.records() == []


def test_many_threads_make_and_use_it(tmp_path: Path) -> None:
    def work(number: int) -> None:
        ledger = Ledger(str(tmp_path / "state"))
        for _ in range(10):
            mine = RECORD._replace(address=f"0000:01:{number:02x}.0")
            with ledger.transaction() as transaction:
                transaction.insert(mine)
            with ledger.transaction() as transaction:
                assert transaction.delete(mine)

    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Ledger(str(tmp_path / "state")).records() == []
