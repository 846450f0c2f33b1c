"""What a device goes home to is read once it is claimed, never from a state that passes."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    Host,
    LocalHostdevDriver,
    PCIDevice,
    PrepareFlags,
    Registry,
    StateError,
    open_connection,
)
from hostdev_core.ledger.store import Ledger
from hostdev_core.ledger.transaction import Transaction
from hostdev_core.model.record import Found
from hostdev_core.simulated import SimulatedHost
from tests.sample import GPU, NIC, SOUND, Brings, add_pair

DEVICE = f"bus/pci/devices/{NIC}"
E1000E = Found("e1000e", None, "on", "e1000e")


class Slow(Ledger):
    """A ledger after whose first reading something happens, before the devices are looked at."""

    def __init__(self, host: SimulatedHost, happens: Callable[[], object]) -> None:
        super().__init__(host.state_dir)
        self._happens: list[Callable[[], object]] = [happens]

    def read(self, ask: Callable[[Transaction], Any]) -> Any:
        found = super().read(ask)
        while self._happens:
            self._happens.pop()()
        return found


class Other:
    """Another process that has the device for a while, up to a moment of its prepare at first."""

    def __init__(
        self, host: SimulatedHost, registry: Registry, moment: str, device: str = NIC
    ) -> None:
        self._conn = open_connection(
            "qemu:///system", host=SimulatedHost.open(host.root), registry=registry
        )
        self._conn.host.watch(self._watch)
        self._moment, self._device = moment, device
        self._there, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._conn.prepare_hostdevs, args=(Domain("vm2", [device]),)
        )

    def _watch(self, moment: str) -> None:
        if moment == self._moment and not self._there.is_set():
            self._there.set()
            self._go_on.wait(60)

    def begin(self) -> None:
        self._thread.start()
        assert self._there.wait(60)

    def end(self) -> None:
        self._go_on.set()
        self._thread.join()
        assert self._conn.reattach_hostdevs("vm2") == (self._device,)


def before_claim(conn: Connection, *happens: Callable[[], object]) -> None:
    """Let these happen one by one before the next transactions, which are those of claims."""
    waiting = [*happens]

    def watch(moment: str) -> None:
        if moment == "before transaction" and waiting:
            waiting.pop(0)()

    conn.host.watch(watch)


@pytest.mark.parametrize(
    "moment",
    [
        f"after write {DEVICE}/driver_override",
        "after write bus/pci/drivers/e1000e/unbind",
        "after write bus/pci/drivers/vfio-pci/bind",
    ],
)
def test_another_process_has_it_at_that_very_moment(
    host: SimulatedHost, registry: Registry, moment: str
) -> None:
    before = host.snapshot()
    other = Other(host, registry, moment)
    slow = SimulatedHost.open(host.root)
    slow.ledger = Slow(host, other.begin)
    with open_connection("qemu:///system", host=slow, registry=registry) as conn:
        before_claim(conn, other.end)
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        (record,) = host.ledger.records()
        assert record.found == E1000E
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


class AsksSlowly(LocalHostdevDriver):
    """Another process is at work while this backend checks the first device."""

    name = "slow"
    uri_schemes = ("slow",)
    stubs = ("vfio-pci",)

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens: list[Callable[[], object]] = [happens]

    def check_device(self, host: Host, device: PCIDevice) -> None:
        while self._happens:
            self._happens.pop()()


def test_one_of_its_group_is_taken_at_that_very_moment(
    host: SimulatedHost, registry: Registry
) -> None:
    """Who has it is named: no rule about a device that stands half way, and without a record yet."""
    add_pair(host)
    before = host.snapshot()
    moment = f"after write bus/pci/devices/{SOUND}/driver_override"
    other = Other(host, registry, moment, device=SOUND)
    registry.register(Brings(AsksSlowly(other.begin)))
    with open_connection("slow:///system", host=host, registry=registry) as conn:
        with pytest.raises(DeviceInUseError, match="vm2"):
            conn.prepare_hostdevs(Domain("vm1", [GPU]))
        other.end()
        conn.prepare_hostdevs(Domain("vm1", [GPU]))
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def rebind(host: SimulatedHost, driver: str) -> None:
    """What an administrator does by hand."""
    now = host.sysfs.link(f"{DEVICE}/driver")
    host.sysfs.write(f"bus/pci/drivers/{now}/unbind", NIC)
    host.sysfs.write(f"{DEVICE}/driver_override", f"{driver}\n")
    host.sysfs.write(f"bus/pci/drivers/{driver}/bind", NIC)


def test_an_administrator_rebinds_it_before_the_claim(
    host: SimulatedHost, conn: Connection
) -> None:
    host.add_driver("igb_uio")
    worlds: list[object] = []

    def happens() -> None:
        rebind(host, "igb_uio")
        worlds.append(host.snapshot())

    before_claim(conn, happens)
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    assert [host.snapshot()] == worlds
    assert host.ledger.records() == []


@pytest.fixture
def other(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    """Somebody else's connection to the same machine."""
    same = SimulatedHost.open(host.root)
    with open_connection("qemu:///system", host=same, registry=registry) as other:
        yield other


def test_who_lends_it_before_the_claim_has_it(
    host: SimulatedHost, conn: Connection, other: Connection
) -> None:
    before = host.snapshot()
    before_claim(conn, lambda: other.prepare_hostdevs(Domain("vm2", [NIC])))
    with pytest.raises(DeviceInUseError) as raised:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert raised.value.used_by is not None
    assert raised.value.used_by.domain == "vm2"
    (record,) = host.ledger.records()
    assert (record.owner, record.phase) == (raised.value.used_by, "active")
    assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    assert other.reattach_hostdevs("vm2") == (NIC,)
    assert host.snapshot() == before


def test_who_detaches_it_before_the_claim_finds_it_on_the_list_again(
    host: SimulatedHost, conn: Connection, other: Connection
) -> None:
    before = host.snapshot()
    before_claim(conn, lambda: other.detach_device(NIC))
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    (record,) = host.ledger.records()
    assert record.phase == "inactive"
    assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
    other.reattach_device(NIC)
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_who_takes_it_from_the_list_before_the_claim_finds_it_as_it_was(
    host: SimulatedHost, conn: Connection, other: Connection
) -> None:
    before = host.snapshot()
    conn.detach_device(NIC)
    before_claim(conn, lambda: other.reattach_device(NIC))
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_who_rebinds_it_all_the_time_is_not_fought(host: SimulatedHost, conn: Connection) -> None:
    host.add_driver("igb_uio")
    drivers = ["igb_uio", "e1000e"] * 4
    before_claim(conn, *(lambda name=name: rebind(host, name) for name in drivers))
    with pytest.raises(StateError, match="changed under"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.ledger.records() == []
    assert host.sysfs.link(f"{DEVICE}/driver") in drivers


def test_what_is_given_back_at_that_very_moment_was_not_rebound(
    host: SimulatedHost, registry: Registry, conn: Connection
) -> None:
    """A second call for the same domain has seen the record, and then looks at the device."""
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    slow = SimulatedHost.open(host.root)
    slow.ledger = Slow(host, lambda: conn.reattach_hostdevs("vm1"))
    with open_connection("qemu:///system", host=slow, registry=registry) as again:
        wanted, flags = Domain("vm1", [NIC]), PrepareFlags.ALLOW_SAME_OWNER
        with pytest.raises(StateError, match=f"{NIC} was changed by somebody else meanwhile"):
            again.prepare_hostdevs(wanted, flags)
        assert host.snapshot() == before
        assert host.ledger.records() == []
        again.prepare_hostdevs(wanted, flags)
        again.reattach_hostdevs("vm1")
    assert host.snapshot() == before
