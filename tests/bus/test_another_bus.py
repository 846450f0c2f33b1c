"""A bus of a test's own goes the whole way: no part of hostdev asks which bus a device is on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    DeviceNotFoundError,
    Domain,
    NotAssignableError,
    StateError,
)
from hostdev_core.testing.contract_parts.base import NIC
from hostdev_core.testing.contract_parts.disturbed import KILLS, LEDGER_ERRORS
from hostdev_core.testing.harness.jobs import Job, run
from tests.bus import another_bus
from tests.bus.another_bus import TOYS, ToyContract, ToyHost, ToyHostdev

CONTRACT = "tests.bus.another_bus:ToyContract"


@pytest.fixture
def host(tmp_path: Path) -> ToyHost:
    host = ToyContract().make_host(tmp_path / "host")
    assert isinstance(host, ToyHost)
    host.plug_in_toys()
    return host


@pytest.fixture
def conn(host: ToyHost) -> Iterator[Connection]:
    with ToyContract().connect(host) as conn:
        yield conn


def lend(conn: Connection, *names: str, to: str = "vm1") -> list[str]:
    hostdevs: list[Any] = [ToyHostdev(name) for name in names]
    assignments = conn.prepare_hostdevs(Domain(to, hostdevs))
    return [each.device.name for each in assignments if each.device is not None]


def users(conn: Connection) -> dict[str, str | None]:
    return {d.name: d.used_by and d.used_by.domain for d in conn.list_devices() if d.kind == "toy"}


def test_it_is_listed_lent_and_given_back(host: ToyHost, conn: Connection) -> None:
    before = host.snapshot()
    assert users(conn) == dict.fromkeys(TOYS)
    assert lend(conn, "toy1", "toy0") == ["toy1", "toy0"]
    assert users(conn) == dict.fromkeys(TOYS, "vm1")
    with ToyContract().connect_other(host) as other:
        with pytest.raises(DeviceInUseError, match=r"toy0 is in use by domain 'vm1'"):
            lend(other, "toy0", to="vm2")
        assert users(other) == dict.fromkeys(TOYS, "vm1")
    assert conn.reload() == ()
    assert conn.reattach_hostdevs("vm1") == ("toy0", "toy1")
    assert users(conn) == dict.fromkeys(TOYS)
    assert host.ledger.records() == []
    assert host.snapshot() == before


def test_one_goes_back_alone(conn: Connection) -> None:
    lend(conn, *TOYS)
    record = conn.forget_device("toy0")
    assert (record.kind, record.address, record.usb) == ("toy", "toy0", "first toy0")
    assert users(conn) == {"toy0": None, "toy1": "vm1"}


def test_its_card_is_not_lent_meanwhile_nor_together_with_it(conn: Connection) -> None:
    hostdevs: list[Any] = [NIC, ToyHostdev("toy0")]
    with pytest.raises(NotAssignableError, match="cannot be lent together"):
        conn.prepare_hostdevs(Domain("vm1", hostdevs))
    lend(conn, "toy0")
    with pytest.raises(DeviceInUseError, match=f"{NIC} belongs with toy0"):
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
    conn.reattach_hostdevs("vm1")
    conn.prepare_hostdevs(Domain("vm2", [NIC]))
    with pytest.raises(DeviceInUseError, match=f"toy0 belongs with {NIC}"):
        lend(conn, "toy0")


def test_one_that_is_not_there_is_not_lent(host: ToyHost, conn: Connection) -> None:
    with pytest.raises(DeviceNotFoundError, match=r"there is no TOY device toy7"):
        lend(conn, "toy0", "toy7")
    assert host.ledger.records() == []


@pytest.mark.parametrize("how", ["pull_out", "exchange"])
def test_one_that_is_gone_is_told_and_its_record_ends(
    host: ToyHost, conn: Connection, how: str
) -> None:
    lend(conn, *TOYS)
    getattr(host, how)("toy0")
    what = {"pull_out": "gone", "exchange": "replaced"}[how]
    assert [(drift.kind, drift.address, drift.what) for drift in conn.reload()] == [
        ("toy", "toy0", what)
    ]
    if how == "exchange":
        assert users(conn) == {"toy0": None, "toy1": "vm1"}
        (planned,) = conn.plan(Domain("vm2", [ToyHostdev("toy0")])).devices  # type: ignore[list-item]
        assert planned.record.usb == "second toy0"
    returned = conn.reattach_hostdevs("vm1")
    assert set(returned) == {*TOYS}
    assert (set(returned.gone), set(returned.replaced)) == (
        {"toy0"},
        {"toy0"} if how == "exchange" else set(),
    )
    assert host.ledger.records() == []


def test_one_that_goes_in_the_middle_is_not_lent(host: ToyHost, conn: Connection) -> None:
    def go(moment: str) -> None:
        if moment == "after transaction" and host.ledger.records():
            host.watch(None)
            host.pull_out("toy0")

    host.watch(go)
    with pytest.raises((StateError, DeviceNotFoundError)):
        lend(conn, *TOYS)
    assert host.ledger.records() == []


@pytest.mark.parametrize("call", ["prepare toys", "reattach toys"])
def test_whoever_is_killed_and_whatever_fails(call: str) -> None:
    kinds = (*KILLS, *LEDGER_ERRORS)
    file = str(another_bus.__file__)
    report = run(Job(CONTRACT, file, call, kinds, setup=("tests.bus.another_bus:set_up",)))
    assert report.losses == []
    assert [name for name, points in report.points.items() if not points] == []
