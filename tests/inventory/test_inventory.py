"""The in-use state is one for all processes and hypervisors; what a dead one left is cleared up."""

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    KernelError,
    KernelTimeoutError,
    PCIHostdev,
    ReattachError,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import (
    SPAWN,
    connect,
    hold,
    kill,
    prepare,
    reattach,
    run,
    running,
    wait_until,
)
from tests.sample import DISK, GPU, NIC, SOUND, add_pair


def test_another_process_sees_what_this_one_lent(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    run(prepare, host.root, "vm1", [NIC])
    (device,) = conn.get_active_pci_hostdev_list()
    assert device.name == NIC
    assert device.used_by is not None
    assert device.used_by.domain == "vm1"
    with pytest.raises(DeviceInUseError, match="vm1"):
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
    run(reattach, host.root, "vm1")
    assert conn.get_active_pci_hostdev_list() == ()
    assert host.snapshot() == before


def test_two_hypervisors_of_one_host_see_each_other(host: SimulatedHost) -> None:
    with connect(host.root) as qemu, connect(host.root, "other:///system") as other:
        qemu.prepare_hostdevs(Domain("vm1", [NIC]))
        other.prepare_hostdevs(Domain("vm1", [DISK]))
        lent = qemu.get_active_pci_hostdev_list()
        assert lent == other.get_active_pci_hostdev_list()
        assert [(d.name, d.used_by.driver) for d in lent if d.used_by] == [
            (NIC, "qemu"),
            (DISK, "other"),
        ]
        with pytest.raises(DeviceInUseError, match="other:///system"):
            qemu.prepare_hostdevs(Domain("vm2", [DISK]))
        assert qemu.reattach_hostdevs("vm1") == (NIC,)
        assert other.reattach_hostdevs("vm1") == (DISK,)


WRITES = [
    "bus/pci/devices/0000:01:00.0/driver_override",
    "bus/pci/drivers/e1000e/unbind",
    "bus/pci/drivers/vfio-pci/bind",
]


@pytest.mark.parametrize("path", WRITES)
def test_what_a_killed_prepare_left_is_undone_by_who_wants_the_device(
    host: SimulatedHost, conn: Connection, path: str
) -> None:
    before = host.snapshot()
    host.on_write(path, hang=True)
    with running(prepare, host.root, "vm1", [NIC, DISK]) as process:
        host.wait_hanging()
        with pytest.raises(DeviceInUseError, match="prepare vm1"):
            conn.prepare_hostdevs(Domain("vm2", [NIC]))
        kill(process)
    assert [record.phase for record in host.ledger.records()] == ["preparing", "preparing"]
    assert conn.get_active_pci_hostdev_list() == ()
    conn.prepare_hostdevs(Domain("vm2", [NIC]))
    conn.reattach_hostdevs("vm2")
    conn.recover()
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.fixture
def pair(host: SimulatedHost) -> None:
    add_pair(host)


@pytest.mark.usefixtures("pair")
def test_who_waited_for_a_killed_prepare_is_recovered_with_it(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [GPU]))
    host.on_write("bus/pci/drivers/vfio-pci/bind", hang=True, value=SOUND)
    with running(prepare, host.root, "vm1", [SOUND]) as process:
        host.wait_hanging()
        assert conn.reattach_pci_hostdevs("vm1", [PCIHostdev(address=GPU)]) == ()
        kill(process)
    assert sorted(conn.recover()) == [GPU, SOUND]
    assert host.ledger.records() == []
    assert host.snapshot() == before


@pytest.mark.usefixtures("pair")
def test_who_waited_for_a_late_write_goes_home_after_it(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [GPU]))
    host.on_write("bus/pci/drivers/vfio-pci/bind", hang=True, value=SOUND)
    host.deadlines = Deadlines(bind=0.2)
    with pytest.raises(KernelTimeoutError):
        conn.prepare_hostdevs(Domain("vm1", [SOUND]))
    with pytest.raises(ReattachError, match=SOUND):
        conn.reattach_hostdevs("vm1")
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


@pytest.mark.parametrize(
    "path",
    [
        "bus/pci/devices/0000:01:00.0/driver_override",
        "bus/pci/drivers/vfio-pci/unbind",
        "bus/pci/drivers/e1000e/bind",
    ],
)
def test_what_a_killed_reattach_left_is_finished(
    host: SimulatedHost, conn: Connection, path: str
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.on_write(path, hang=True)
    with running(reattach, host.root, "vm1") as process:
        host.wait_hanging()
        kill(process)
    assert [record.phase for record in host.ledger.records()] == ["releasing"]
    assert conn.recover() == (NIC,)
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_the_domain_itself_clears_up_after_a_killed_reattach(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.on_write("bus/pci/drivers/vfio-pci/unbind", hang=True)
    with running(reattach, host.root, "vm1") as process:
        host.wait_hanging()
        with pytest.raises(ReattachError, match=NIC):
            conn.reattach_hostdevs("vm1")
        kill(process)
    assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot() == before


def test_a_killed_claim_is_recovered_too(host: SimulatedHost, conn: Connection) -> None:
    """A device of the list that a dead prepare had claimed is on the list again."""
    conn.detach_device(NIC)
    detached = host.snapshot()
    host.on_write("bus/pci/drivers/nvme/unbind", hang=True)
    with running(prepare, host.root, "vm1", [NIC, DISK]) as process:
        host.wait_hanging()
        kill(process)
    conn.recover()
    assert host.snapshot() == detached
    assert [device.name for device in conn.get_inactive_pci_hostdev_list()] == [NIC]


def test_a_device_that_a_process_holds_is_not_given_back(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    ready = SPAWN.Event()
    with running(hold, host.root, NIC, ready) as holder:
        assert ready.wait(30)
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        (error,) = raised.value.exceptions
        assert isinstance(error, DeviceInUseError)
        assert f"pid {holder.pid}" in str(error)
        assert any(f"pid {holder.pid}" in name for name in error.holders)
        assert host.snapshot()[DISK] == before[DISK]
        assert [device.name for device in conn.get_active_pci_hostdev_list()] == [NIC]
    assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot() == before


def test_a_device_that_a_stranger_holds_is_not_lent(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci("0000:08:00.0", kernel_driver="vfio-pci", iommu_group=8)
    with host.hold("0000:08:00.0"):
        before = host.snapshot()
        with pytest.raises(DeviceInUseError):
            conn.prepare_hostdevs(Domain("vm1", ["08:00.0"]))
        assert host.snapshot() == before
        assert host.ledger.records() == []


def test_a_failed_hotplug_into_the_group_of_a_running_guest(
    host: SimulatedHost, conn: Connection
) -> None:
    """The guest holds the group, rightly; the device that failed goes back all the same."""
    add_pair(host)
    conn.prepare_hostdevs(Domain("vm1", ["03:00.0"]))
    lent = host.snapshot()
    with host.hold("0000:03:00.0"):
        host.on_write("bus/pci/drivers/vfio-pci/bind", errno=5, value="0000:03:00.1")
        with pytest.raises(KernelError) as raised:
            conn.prepare_hostdevs(Domain("vm1", ["03:00.1"]))
        assert getattr(raised.value, "__notes__", []) == []
        assert host.snapshot() == lent
        conn.prepare_hostdevs(Domain("vm1", ["03:00.1"]))
    conn.reattach_hostdevs("vm1")
