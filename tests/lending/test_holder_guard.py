"""A device that a process holds is neither lent nor given back, also where not all can be seen."""

import errno
import os
from collections.abc import Callable, Collection, Iterator

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    ReattachError,
    Registry,
    open_connection,
)
from hostdev_core.kernel.processes import Holder, Identity, Search
from hostdev_core.simulated import SimulatedHost
from tests.helpers import in_use
from tests.helpers.in_use import STICK, usb_node, wanted
from tests.helpers.users import (
    CARD,
    having_open,
    put,
)

machine = in_use.machine


# USB: a guest has claimed an interface; a program has the node open.


@pytest.fixture
def claimed(machine: SimulatedHost) -> Iterator[str]:
    with machine.hold(STICK):
        yield STICK


def test_a_claimed_interface_is_held(
    machine: SimulatedHost, conn: Connection, claimed: str
) -> None:
    """As a QEMU outside the ledger has it: no rule passes that."""
    before = machine.snapshot()
    with having_open(usb_node(machine)) as pid:
        for call in (conn.plan, conn.prepare_hostdevs):
            with pytest.raises(
                DeviceInUseError, match=f"{claimed} is held by .*pid {pid},"
            ) as raised:
                call(wanted(claimed, "in-use", "held"))
            assert raised.value.rule == "held"
            assert f"interface {claimed}:1.0 is claimed" in raised.value.evidence
    with pytest.raises(DeviceInUseError, match="a process that cannot be seen from here"):
        conn.plan(wanted(claimed))
    assert machine.snapshot() == before
    assert machine.ledger.records() == []


@pytest.mark.parametrize("claims", [True, False])
def test_a_lent_stick_stays_lent_while_somebody_has_it(
    machine: SimulatedHost, conn: Connection, registry: Registry, claims: bool
) -> None:
    """A killed manager's guest runs on: the stick is not the next one's. Others go home."""
    before = machine.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [STICK, "1-1"]))
    (was,) = (each for each in machine.ledger.records() if each.address == STICK)

    def check(evidence: str) -> None:
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert isinstance(error, DeviceInUseError)
        assert (error.rule, error.device) == ("held", STICK)
        assert any(evidence in line for line in error.evidence)
        assert machine.ledger.records() == [was]

    if claims:
        with machine.hold(STICK):
            check("is claimed")
    else:
        with having_open(usb_node(machine)) as pid:
            check(f"pid {pid},")
            with (
                open_connection("qemu:///system", host=machine, registry=registry) as other,
                pytest.raises(DeviceInUseError, match="vm1"),
            ):
                other.prepare_hostdevs(Domain("vm2", [STICK]))
    assert conn.reattach_hostdevs("vm1") == (STICK,)
    assert machine.snapshot() == before
    assert machine.ledger.records() == []


def test_another_stick_in_its_place_keeps_nobody(machine: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [STICK]))
    machine.unplug(STICK)
    machine.add_usb(STICK, id="0781:5581")
    with having_open(usb_node(machine)):
        assert conn.reattach_hostdevs("vm1") == (STICK,)
    assert machine.ledger.records() == []


def test_the_same_stick_under_a_new_number_is_kept(
    machine: SimulatedHost, conn: Connection
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [STICK]))
    machine.unplug(STICK)
    machine.add_usb(STICK, id="0951:1666", serial="60A4", device=77)
    with machine.hold(STICK), pytest.raises(ReattachError):
        conn.reattach_hostdevs("vm1")
    assert conn.reattach_hostdevs("vm1") == (STICK,)


# VFIO's own node, by somebody outside the ledger.


@pytest.fixture
def on_vfio(host: SimulatedHost) -> str:
    """A card that was found on vfio-pci; its VFIO node."""
    host.modules.load("vfio-pci")
    host.add_pci(CARD, kernel_driver="vfio-pci", driver_override="vfio-pci", iommu_group=5)
    (name,) = host.sysfs.names(f"bus/pci/devices/{CARD}/vfio-dev")
    put(host, f"dev/vfio/devices/{name}", "")
    return host.path(f"dev/vfio/devices/{name}")


def all_calls(conn: Connection) -> dict[str, Callable[[], object]]:
    return {
        "plan": lambda: conn.plan(wanted(CARD, "in-use")),
        "prepare": lambda: conn.prepare_hostdevs(wanted(CARD, "in-use")),
        "detach": lambda: conn.detach_device(CARD, allow=["in-use"]),
        "reset": lambda: conn.reset_device(CARD, allow=["in-use"]),
    }


@pytest.mark.parametrize("what", ["plan", "prepare", "detach", "reset"])
def test_who_has_the_vfio_node_is_named(
    host: SimulatedHost, conn: Connection, on_vfio: str, what: str
) -> None:
    before = host.snapshot()
    with having_open(on_vfio) as pid:
        with pytest.raises(DeviceInUseError, match=f"{CARD} is held by .*pid {pid},") as raised:
            all_calls(conn)[what]()
        assert raised.value.rule == "held"
        assert host.snapshot() == before
        assert host.ledger.records() == []
    all_calls(conn)[what]()


class Unsure(SimulatedHost):
    """A host whose processes cannot all be looked at in time."""

    why = "the search of /proc has not ended within 30 s"

    def search_openers(self, nodes: Collection[Identity], seconds: float | None = None) -> Search:
        del nodes, seconds
        return Search(cut=self.why)


@pytest.mark.parametrize("what", ["plan", "prepare", "detach", "reset"])
def test_not_found_in_time_is_not_nobody(
    host: SimulatedHost, registry: Registry, on_vfio: str, what: str
) -> None:
    assert os.path.exists(on_vfio)
    before = host.snapshot()
    with (
        open_connection("qemu:///system", host=Unsure(host.root), registry=registry) as conn,
        pytest.raises(DeviceInUseError, match="has not ended within") as raised,
    ):
        all_calls(conn)[what]()
    assert raised.value.rule == "held"
    assert raised.value.evidence == (Unsure.why,)
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize("device", [CARD, STICK])
def test_nor_is_it_on_the_way_home(
    machine: SimulatedHost, conn: Connection, registry: Registry, device: str
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [device]))
    for name in machine.sysfs.names(f"bus/pci/devices/{CARD}/vfio-dev"):
        put(machine, f"dev/vfio/devices/{name}", "")
    lent, records = machine.snapshot(), machine.ledger.records()
    with (
        open_connection("qemu:///system", host=Unsure(machine.root), registry=registry) as unsure,
        pytest.raises(ReattachError) as raised,
    ):
        unsure.reattach_hostdevs("vm1")
    (error,) = raised.value.exceptions
    assert isinstance(error, DeviceInUseError)
    assert error.evidence == (Unsure.why,)
    assert machine.snapshot() == lent
    assert machine.ledger.records() == records
    assert conn.reattach_hostdevs("vm1") == (device,)


class Blinded(SimulatedHost):
    """A host whose drivers cannot be read any more once a held node was met."""

    def open_node(self, path: str) -> int:
        try:
            return super().open_node(path)
        except OSError:
            self.watch_reads(self.fail)
            raise

    @staticmethod
    def fail(what: str) -> None:
        if what.startswith("link ") and what.endswith("/driver"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_held_one_whose_driver_cannot_be_read_is_not_put_to_rest(
    machine: SimulatedHost, registry: Registry
) -> None:
    """That it is still on its stub is not known: it is stuck, and moved by nobody."""
    before, host = machine.snapshot(), Blinded(machine.root)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [CARD]))
        lent = machine.snapshot()
        with machine.hold(CARD), pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        host.watch_reads(None)
        (error,) = raised.value.exceptions
        assert isinstance(error, DeviceInUseError)
        (record,) = machine.ledger.records()
        assert (record.op, record.stuck) == (None, f"{error}")
        assert machine.snapshot() == lent
        assert conn.recover() == (CARD,)
    assert machine.snapshot() == before


class Hidden(SimulatedHost):
    """A host of which not all processes can be seen, as from a container."""

    why = "processes outside this PID namespace are not seen"

    def search_openers(self, nodes: Collection[Identity], seconds: float | None = None) -> Search:
        return super().search_openers(nodes, seconds)._replace(hidden=self.why)


def test_where_not_all_can_be_seen_the_kernel_decides(
    machine: SimulatedHost, registry: Registry
) -> None:
    """A group that opens is nobody's. Of a USB device there is no such word, and it stays lent."""
    before = machine.snapshot()
    host = Hidden(machine.root)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        assert any(Hidden.why in warning for warning in conn.plan(wanted(CARD)).warnings)
        conn.prepare_hostdevs(Domain("vm1", [CARD, STICK]))
        for name in machine.sysfs.names(f"bus/pci/devices/{CARD}/vfio-dev"):
            put(machine, f"dev/vfio/devices/{name}", "")
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert isinstance(error, DeviceInUseError)
        assert (error.device, error.evidence) == (STICK, (Hidden.why,))
        assert [record.address for record in machine.ledger.records()] == [STICK]
        assert machine.snapshot() == before


def test_without_a_group_that_opens_nobody_can_be_sure(
    host: SimulatedHost, registry: Registry, on_vfio: str
) -> None:
    """As with a kernel that has VFIO's devices and no groups."""
    assert os.path.exists(on_vfio)
    os.unlink(host.path("dev/vfio/5"))
    os.unlink(host.path("sys/class/vfio/5"))
    hidden = Hidden(host.root)
    with (
        open_connection("qemu:///system", host=hidden, registry=registry) as conn,
        pytest.raises(DeviceInUseError, match="are not seen") as raised,
    ):
        conn.plan(wanted(CARD))
    assert (raised.value.rule, raised.value.evidence) == ("held", (Hidden.why,))


class Glance(SimulatedHost):
    """Somebody has each node open at the first look, and nobody at the next."""

    looks = 0

    def search_openers(self, nodes: Collection[Identity], seconds: float | None = None) -> Search:
        del seconds
        self.looks += 1
        udev = Holder(7, "(udev-worker)", "/dev/nvme0n1")
        return Search(tuple((known, udev) for known in nodes) if self.looks % 2 else ())


def test_who_looks_for_a_moment_is_no_user(machine: SimulatedHost, registry: Registry) -> None:
    machine.modules.load("vfio-pci")  # it is decided anew after a load
    host = Glance(machine.root)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [CARD, STICK]))
        assert host.looks == 2  # for all devices of the request together
        conn.reattach_hostdevs("vm1")
    assert machine.ledger.records() == []
