"""One device's kernel hangs: only that device is stuck, and it goes home when the kernel returns."""

import threading
from collections.abc import Iterator

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    KernelTimeoutError,
    ReattachError,
    Registry,
    open_connection,
)
from hostdev_core.inventory.inventory import look
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import wait_until
from tests.sample import DISK, NIC

# Short for what hangs, long for what others do beside it, on a busy machine too.
SHORT = Deadlines(unbind=3.0, bind=3.0, reset=3.0)
FIRST, SECOND = "0000:03:00.0", "0000:04:00.0"


@pytest.fixture
def hasty(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection("qemu:///system", host=host, registry=registry, deadlines=SHORT) as conn:
        yield conn
    host.release()


def test_others_go_on_while_one_device_hangs(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    ends: list[BaseException | None] = []

    def stuck() -> None:
        try:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
            ends.append(None)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=stuck)
    thread.start()
    try:
        host.wait_hanging()
        conn.prepare_hostdevs(Domain("vm2", [DISK]))
        conn.plan(Domain("vm3", []))
        assert {device.name for device in look(host).pci.values()} == {NIC, DISK}
        assert [device.name for device in conn.list_devices()] == [NIC, DISK]
        assert [device.name for device in conn.get_active_pci_hostdev_list()] == [DISK]
        assert conn.get_inactive_pci_hostdev_list() == ()
        assert conn.reload() == ()
        with pytest.raises(DeviceInUseError, match="vm1"):
            conn.plan(Domain("vm3", [NIC]))
        with pytest.raises(DeviceInUseError, match="vm1"):
            conn.prepare_hostdevs(Domain("vm3", [NIC]))
        conn.reattach_hostdevs("vm2")
        assert ends == []  # still hanging: nothing above waited for it
        assert host.hanging()
    finally:
        host.release()
        thread.join(60)
    assert ends == [None]
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


@pytest.mark.parametrize("path", ["bus/pci/drivers/e1000e/unbind", "bus/pci/drivers/vfio-pci/bind"])
def test_a_prepare_that_hangs_is_undone_when_the_kernel_returns(
    host: SimulatedHost, hasty: Connection, path: str
) -> None:
    before = host.snapshot()
    host.on_write(path, value=NIC, hang=True)
    with pytest.raises(KernelTimeoutError) as raised:
        hasty.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert raised.value.path.endswith(path)
    assert NIC in str(raised.value)
    (record,) = host.ledger.records()
    assert record.address == NIC
    assert record.stuck is not None
    assert "not returned in time" in record.stuck
    assert host.snapshot()[DISK] == before[DISK]
    with pytest.raises(DeviceInUseError, match=r"not returned in time|prepare vm1"):
        hasty.prepare_hostdevs(Domain("vm2", [NIC]))
    hasty.prepare_hostdevs(Domain("vm2", [DISK]))
    hasty.reattach_hostdevs("vm2")
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before
    hasty.prepare_hostdevs(Domain("vm2", [NIC]))
    hasty.reattach_hostdevs("vm2")


def test_nobody_else_touches_what_hangs(host: SimulatedHost, registry: Registry) -> None:
    """The lane that hangs takes its device home itself: an undo beside it would wait as long."""
    before = host.snapshot()
    limits = Deadlines(unbind=1.0, attribute=10.0)
    host.on_write("*/e1000e/unbind", value=NIC, hang=True)
    with open_connection("qemu:///system", host=host, registry=registry, deadlines=limits) as conn:
        with pytest.raises(KernelTimeoutError) as raised:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert getattr(raised.value, "__notes__", []) == []  # it was not even tried
        (record,) = host.ledger.records()
        assert operations.is_alive(host.state_dir, record.op or "")
        assert [value for _, value in host.hanging()] == [NIC]
        host.release()
        wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


@pytest.mark.long
def test_two_devices_that_hang(host: SimulatedHost, hasty: Connection) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    host.on_write("bus/pci/drivers/nvme/unbind", hang=True)
    with pytest.raises(KernelTimeoutError):
        hasty.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert len(host.hanging()) == 2
    assert all(record.stuck for record in host.ledger.records())
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


@pytest.mark.long
def test_one_is_late_and_back_before_another_one_has_ended(
    host: SimulatedHost, registry: Registry
) -> None:
    """The late device goes home by itself, and nobody touches it a second time."""
    before = host.snapshot()
    deadlines = Deadlines(unbind=1.0)
    host.on_write("bus/pci/drivers/e1000e/unbind", delay=3.0)

    def watch(what: str) -> None:
        if what == "before write bus/pci/drivers/vfio-pci/bind":  # that of the other one
            wait_until(lambda: [record.address for record in host.ledger.records()] == [DISK])

    host.watch(watch)
    with (
        open_connection(
            "qemu:///system", host=host, registry=registry, deadlines=deadlines
        ) as conn,
        pytest.raises(KernelTimeoutError, match=NIC),
    ):
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before
    homeward = [write for write in host.writes() if write[0].endswith("e1000e/bind")]
    assert len(homeward) == 1


def test_a_reattach_that_hangs_is_finished_when_the_kernel_returns(
    host: SimulatedHost, hasty: Connection
) -> None:
    before = host.snapshot()
    hasty.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    host.on_write("bus/pci/drivers/vfio-pci/unbind", value=NIC, hang=True)
    with pytest.raises(ReattachError) as raised:
        hasty.reattach_hostdevs("vm1")
    (error,) = raised.value.exceptions
    assert isinstance(error, KernelTimeoutError)
    assert NIC in str(error)
    assert host.snapshot()[DISK] == before[DISK]
    assert [record.stuck is not None for record in host.ledger.records()] == [True]
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


def test_a_module_that_does_not_load_in_time(host: SimulatedHost, registry: Registry) -> None:
    before = host.snapshot()
    host.on_write("modprobe", hang=True)
    with (
        open_connection(
            "qemu:///system", host=host, registry=registry, deadlines=Deadlines(load=0.3)
        ) as conn,
        pytest.raises(KernelTimeoutError, match="vfio_pci"),
    ):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.release()
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_device_whose_lock_is_kept_is_not_claimed(
    host: SimulatedHost, registry: Registry
) -> None:
    """Somebody else's write hangs: the details cannot be read, and nothing is changed."""
    host.on_write(f"bus/pci/devices/{NIC}/driver_override", hang=True)
    foreign = threading.Thread(
        target=lambda: host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "x\n")
    )
    foreign.start()
    try:
        host.wait_hanging()
        with (
            open_connection(
                "qemu:///system", host=host, registry=registry, deadlines=Deadlines(attribute=0.3)
            ) as conn,
            pytest.raises(KernelTimeoutError, match=NIC),
        ):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert host.ledger.records() == []
    finally:
        host.release()
        foreign.join(60)
