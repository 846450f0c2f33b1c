"""A device goes home as it was found, whatever became of its driver, and however odd it was."""

import errno
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    Device,
    Domain,
    Holder,
    Host,
    InvalidAddressError,
    LocalHostdevDriver,
    NotAssignableError,
    PCIDevice,
    ReattachError,
    StateError,
    hookimpl,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.crossing import lent
from tests.helpers.processes import wait_until
from tests.sample import DISK, GPU, NIC, Brings, connect

CARD = "0000:09:00.0"


def give_back(host: SimulatedHost, conn: Connection) -> None:
    conn.reattach_hostdevs("vm1")
    assert host.ledger.records() == []


@pytest.mark.parametrize("on_stub", [True, False])
def test_a_module_that_was_unloaded_meanwhile_takes_its_device_by_itself(
    host: SimulatedHost, conn: Connection, *, on_stub: bool
) -> None:
    """The way home neither finds the device bound already, nor leaves it without its driver."""
    host.add_driver("e100", module="e100_module", ids=["8086:1229"])
    host.add_pci(CARD, id="8086:1229", kernel_driver="e100", iommu_group=9)
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [CARD]))
    host.unload_module("e100_module")
    if not on_stub:
        host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", CARD)
        host.sysfs.write(f"bus/pci/devices/{CARD}/driver_override", "e100")
    give_back(host, conn)
    assert host.snapshot() == before


@pytest.mark.parametrize("text", ["a b  c", "(null)x", " before", "after ", "\u00e9", "x" * 4094])
def test_a_driver_override_of_any_text_is_put_back(
    host: SimulatedHost, conn: Connection, text: str
) -> None:
    """The kernel takes 4094 bytes, with or without a newline."""
    host.add_pci(CARD, iommu_group=9, driver_override=text)
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [CARD]))
    give_back(host, conn)
    assert host.snapshot() == before


def test_a_driver_override_that_is_no_text_is_left_alone(
    host: SimulatedHost, conn: Connection
) -> None:
    host.add_pci(CARD, iommu_group=9)
    override = Path(host.path(f"sys/bus/pci/devices/{CARD}/driver_override"))
    override.write_bytes(b"a\xffb\n")
    before = host.snapshot()
    with pytest.raises(NotAssignableError, match=f"driver_override of {CARD} is no UTF-8 text"):
        conn.prepare_hostdevs(Domain("vm1", [CARD]))
    assert host.snapshot() == before
    assert override.read_bytes() == b"a\xffb\n"


@pytest.fixture
def dom0(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_pci(GPU, kernel_driver="nouveau")
    return host


def test_a_xen_device_that_was_pulled_out_leaves_no_slot(dom0: SimulatedHost) -> None:
    host, before = dom0, dom0.snapshot()
    with connect(host, uri="xen:///system") as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]))
        host.unplug(GPU)
        conn.reattach_hostdevs("vm1")
    host.add_pci(GPU, kernel_driver="nouveau")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_slot_that_pciback_keeps_is_told_of(dom0: SimulatedHost) -> None:
    host, before = dom0, dom0.snapshot()
    with connect(host, uri="xen:///system") as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]))
        host.on_write("*/remove_slot", effect=False)
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert str(error) == f"{GPU} is still among pciback's slots after remove_slot"
        (record,) = host.ledger.records()
        assert (record.address, record.op, record.stuck) == (GPU, None, str(error))
        assert conn.recover() == (GPU,)
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_driver_that_waits_for_something_else_is_tried_again_later(
    host: SimulatedHost, conn: Connection
) -> None:
    """Its probe is deferred: that is no refusal, and the reason in the ledger says what to do."""
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    host.on_write("*/e1000e/bind", errno=errno.EAGAIN)
    with pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    assert raised.value.returned == (DISK,)
    (record,) = host.ledger.records()
    assert (record.address, record.op) == (NIC, None)
    assert "e1000e waits for something else (deferred probe); try again later" in str(record.stuck)
    assert conn.recover() == (NIC,)
    assert host.snapshot() == before


def test_an_exit_in_the_midst_of_one_way_home_leaves_it_to_recovery(
    host: SimulatedHost, conn: Connection
) -> None:
    """No error of the device: whatever ends the thread in which it goes home. Others go on."""
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))

    def leave(moment: str) -> None:
        if moment == "before write bus/pci/drivers/e1000e/bind":
            raise SystemExit

    conn.host.watch(leave)
    with pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    conn.host.watch(None)
    assert raised.value.returned == (DISK,)
    (error,) = raised.value.exceptions
    assert isinstance(error, StateError)
    assert "its way home was interrupted (SystemExit()); `hostdev recover`" in str(error)
    (record,) = host.ledger.records()
    assert (record.address, record.stuck) == (NIC, None)
    assert conn.recover() == (NIC,)
    assert host.snapshot() == before
    assert host.ledger.records() == []


class CluelessDriver(LocalHostdevDriver):
    """Cannot tell who has a device on the second network card's address."""

    name = "clueless"
    uri_schemes = ("clueless",)
    stubs = ("vfio-pci",)
    broken = False

    def holders(self, host: Host, device: PCIDevice) -> Sequence[str]:
        if CluelessDriver.broken and device.name == DISK:
            raise ValueError("out of order")
        return ()


def test_a_backend_that_raises_keeps_nobody_else_from_going_home(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect(host, Brings(CluelessDriver()), uri="clueless:///") as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        CluelessDriver.broken = True
        try:
            with pytest.raises(ReattachError) as raised:
                conn.reattach_hostdevs("vm1")
        finally:
            CluelessDriver.broken = False
        (error,) = raised.value.exceptions
        assert str(error) == "driver clueless: holders raised ValueError('out of order')"
        assert lent(host) == {DISK: "vm1"}
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


class BusyHost(SimulatedHost):
    """A host with so many processes that the search for who has a device takes long."""

    def openers(self, nodes: Collection[Any]) -> tuple[Holder, ...]:
        time.sleep(1.5)
        return super().openers(nodes)


class HearsOfReattach:
    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    @hookimpl
    def hostdev_after_reattach(self, devices: Sequence[Device]) -> None:
        self.heard.append(tuple(device.name for device in devices))


def test_one_that_is_late_and_ends_while_the_message_is_made(tmp_path: Path) -> None:
    """Two are late; the second comes home while who uses the first is looked up. The third came home."""
    host = BusyHost.create(tmp_path / "host", deadlines=Deadlines(unbind=0.3))
    for slot, address in enumerate((NIC, DISK, CARD)):
        host.add_pci(address, kernel_driver="e1000e", iommu_group=slot)
    before, plugin = host.snapshot(), HearsOfReattach()
    with connect(host, plugin) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK, CARD]))
        host.on_write("*/vfio-pci/unbind", value=NIC, delay=3.0)
        host.on_write("*/vfio-pci/unbind", value=DISK, delay=0.8)
        with pytest.raises(ReattachError, match="not given back") as caught:
            conn.reattach_hostdevs("vm1")
        assert CARD in caught.value.returned
        assert plugin.heard == [caught.value.returned]
        wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


def test_forget_says_what_is_wrong_with_a_name(conn: Connection) -> None:
    for name, reason in (("usb1", "root hub"), ("01:00.9", "the function to 7")):
        with pytest.raises(InvalidAddressError, match=reason):
            conn.forget_device(name)


class HearsOfPrepare:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def hostdev_before_prepare(self, devices: Sequence[Device]) -> None:
        self.heard += [device.name for device in devices]


def test_plugins_hear_of_devices_in_the_order_of_a_listing(tmp_path: Path) -> None:
    """By number, not as text: the domains of a VMD go beyond ffff."""
    host, plugin = SimulatedHost.create(tmp_path / "host"), HearsOfPrepare()
    names = ["f000:01:00.0", "10000:01:00.0"]
    for group, name in enumerate(names):
        host.add_pci(name, kernel_driver="e1000e", iommu_group=group)
    with connect(host, plugin) as conn:
        conn.prepare_hostdevs(Domain("vm1", reversed(names)))
        assert plugin.heard == names == [device.name for device in conn.list_devices()]
        conn.reattach_hostdevs("vm1")
