"""A driver that overrides a call: what was lent in it is taken back where its own part fails."""

from pathlib import Path

import pytest

from hostdev_core import (
    Assignment,
    Connection,
    DeviceInUseError,
    Domain,
    HostdevDriver,
    LocalHostdevDriver,
    NotAssignableError,
    PluginError,
    PrepareFlags,
    hookimpl,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import GPU, NIC, OTHER, SOUND, connect_driver

pytestmark = pytest.mark.sample


class Base(LocalHostdevDriver):
    name = "mine"
    uri_schemes = ("mine",)
    stubs = ("vfio-pci",)


class Raises(Base):
    """It registers the devices with its daemon afterwards, which is not there."""

    error: BaseException = ConnectionRefusedError("no daemon")

    def prepare_hostdevs(
        self, conn: Connection, domain: Domain, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        super().prepare_hostdevs(conn, domain, flags)
        raise self.error

    def detach_device(
        self, conn: Connection, address: str, *, allow: frozenset[str] = frozenset()
    ) -> None:
        super().detach_device(conn, address, allow=allow)
        raise self.error


class RaisesOurs(Raises):
    error = NotAssignableError("not today", device=NIC)


class Interrupted(Raises):
    error = KeyboardInterrupt()


class OneByOne(Base):
    """Each hostdev in a call of its own; the last is refused."""

    def prepare_hostdevs(
        self, conn: Connection, domain: Domain, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        lent: list[Assignment] = []
        for hostdev in domain.hostdevs:
            lent += super().prepare_hostdevs(conn, Domain(domain.name, [hostdev]), flags)
        return tuple(lent)


class AnswersNothing(Base):
    def prepare_hostdevs(  # type: ignore[override]
        self, conn: Connection, domain: Domain, flags: PrepareFlags
    ) -> None:
        super().prepare_hostdevs(conn, domain, flags)


class ForgetsOne(Base):
    def prepare_hostdevs(
        self, conn: Connection, domain: Domain, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        return super().prepare_hostdevs(conn, domain, flags)[1:]


class LendsToAnother(Base):
    def prepare_hostdevs(
        self, conn: Connection, domain: Domain, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        return super().prepare_hostdevs(conn, Domain("other", domain.hostdevs), flags)


class ReturnsNothing(Base):
    def reattach_hostdevs(self, conn: Connection, domain: Domain) -> tuple[str, ...]:
        super().reattach_hostdevs(conn, domain)
        return None  # type: ignore[return-value]


class Told:
    """What a plugin hears."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        self.told.append("after_prepare")

    @hookimpl
    def hostdev_prepare_failed(self, error: BaseException) -> None:
        self.told.append(f"prepare_failed {type(error).__name__}")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (Raises(), PluginError),
        (RaisesOurs(), NotAssignableError),
        (Interrupted(), KeyboardInterrupt),
        (AnswersNothing(), PluginError),
        (ForgetsOne(), PluginError),
        (LendsToAnother(), PluginError),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("worker", [False, True])
def test_what_was_lent_is_taken_back(
    host: SimulatedHost, row: HostdevDriver, kind: type[BaseException], worker: bool
) -> None:
    before = host.snapshot()
    told = Told()
    with connect_driver(row, host, told, worker=worker) as conn, pytest.raises(kind):
        conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER, "1-1"]))
    assert host.snapshot() == before
    assert host.ledger.records() == []
    if not worker:
        assert [words.partition(" ")[0] for words in told.told] == [
            "after_prepare",
            "prepare_failed",
        ]


def test_the_error_names_the_driver_and_the_method(host: SimulatedHost) -> None:
    with connect_driver(Raises(), host) as conn, pytest.raises(PluginError) as caught:
        conn.prepare_pci_hostdevs("vm1", [NIC])
    assert str(caught.value).startswith("driver mine: prepare_hostdevs raised ConnectionRefused")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_driver_that_is_called_directly(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect_driver(Raises(), host) as conn:
        assert conn.hostdev_driver is not None
        with pytest.raises(PluginError):
            conn.hostdev_driver.prepare_hostdevs(conn, Domain("vm1", [NIC]), PrepareFlags.NONE)
    assert host.snapshot() == before


def test_several_calls_are_one(host: SimulatedHost) -> None:
    with connect_driver(Base(), host) as conn:
        conn.prepare_hostdevs(Domain("vm2", ["0000:05:00.0"]))
    before = host.snapshot()
    with connect_driver(OneByOne(), host) as conn:
        with pytest.raises(DeviceInUseError):
            conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER, "0000:05:00.0"]))
        assert host.snapshot() == before
        assert [record.address for record in host.ledger.records()] == ["0000:05:00.0"]
        assert len(conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER]))) == 2


def test_what_it_had_before_stays_its_own(host: SimulatedHost) -> None:
    """A sibling that was asked for by name is one again, and what was lent already stays lent."""
    with connect_driver(Base(), host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU, NIC]), PrepareFlags.WHOLE_GROUP)
        records = host.ledger.records()
    with connect_driver(Raises(), host) as conn, pytest.raises(PluginError):
        conn.prepare_hostdevs(
            Domain("vm1", [GPU, SOUND, NIC, OTHER]), PrepareFlags.ALLOW_SAME_OWNER
        )
    assert host.ledger.records() == records


def test_what_was_detached_goes_back_where_it_was(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect_driver(Raises(), host) as conn, pytest.raises(PluginError):
        conn.detach_device(NIC)
    assert host.snapshot() == before
    assert host.ledger.records() == []
    with connect_driver(Base(), host) as conn:
        conn.detach_device(NIC)
        listed = [record._replace(since=0.0) for record in host.ledger.records()]
    with connect_driver(Raises(), host) as conn, pytest.raises(PluginError):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert [record._replace(since=0.0) for record in host.ledger.records()] == listed


def test_what_cannot_be_taken_back_is_stuck_with_the_reason(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/bind", errno=5)
    with connect_driver(Raises(), host) as conn, pytest.raises(PluginError) as caught:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    (record,) = host.ledger.records()
    assert record.stuck is not None
    assert any("is stuck" in note for note in caught.value.__notes__)


def test_what_no_operation_can_take_back_stays_lent(host: SimulatedHost) -> None:
    """The directory of its locks is lost meanwhile: the error says so, and the records stay."""
    before = host.snapshot()
    place = Path(host.state_dir, "op")

    class RaisesAndLosesIt(Base):
        def prepare_hostdevs(
            self, conn: Connection, domain: Domain, flags: PrepareFlags
        ) -> tuple[Assignment, ...]:
            super().prepare_hostdevs(conn, domain, flags)
            place.rmdir()
            place.touch()
            raise ConnectionRefusedError("no daemon")

    with connect_driver(RaisesAndLosesIt(), host) as conn:
        with pytest.raises(PluginError, match="no daemon") as caught:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        (note,) = caught.value.__notes__
        assert note.startswith("what it had lent stays lent: cannot begin an operation in ")
        (record,) = host.ledger.records()
        assert (record.address, record.op, record.stuck) == (NIC, None, None)
        place.unlink()
        assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize("same", [True, False], ids=["its connection", "another connection"])
def test_what_a_hook_lends_in_it_is_another_call(host: SimulatedHost, same: bool) -> None:
    class RaisesForVM1(Base):
        def prepare_hostdevs(
            self, conn: Connection, domain: Domain, flags: PrepareFlags
        ) -> tuple[Assignment, ...]:
            lent = super().prepare_hostdevs(conn, domain, flags)
            if domain.name == "vm1":
                raise ConnectionRefusedError("no daemon")
            return lent

    class Lending:
        @hookimpl
        def hostdev_after_prepare(self, conn: Connection, domain: Domain | None) -> None:
            if domain is not None and domain.name == "vm1":
                (conn if same else other).prepare_hostdevs(Domain("vm2", [OTHER]))

    with (
        connect_driver(Base(), host) as other,
        connect_driver(RaisesForVM1(), host, Lending()) as conn,
        pytest.raises(PluginError),
    ):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    owners = {r.address: r.owner and r.owner.domain for r in host.ledger.records()}
    assert owners == {OTHER: "vm2"}


def test_a_return_that_answers_nothing_is_named(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect_driver(ReturnsNothing(), host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        with pytest.raises(PluginError, match="reattach_hostdevs answered None; wanted the addr"):
            conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
