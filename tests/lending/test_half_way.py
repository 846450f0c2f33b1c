"""What stands half way is neither lent nor free, whoever looks at it and whatever cannot be asked."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

import hostdev_libxl
import hostdev_qemu
from hostdev_core import (
    BackendStep,
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    Host,
    LocalHostdevDriver,
    PCIDevice,
    PrepareFlags,
    ReattachError,
    Registry,
    StateError,
    hookimpl,
    open_connection,
)
from hostdev_core.model.record import Phase
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import wait_until
from tests.sample import DISK, GPU, NIC, SOUND, Brings, make_registry


class Guests(LocalHostdevDriver):
    """A hypervisor that knows which guest has a device: `told` is what it says."""

    name = "guests"
    uri_schemes = ("guests",)
    stubs = ("vfio-pci",)
    told: ClassVar[list[str]] = []

    def holders(self, host: Host, device: PCIDevice) -> Sequence[str]:
        return [f"guest with {name}" for name in self.told if name == device.name]


def connect(host: SimulatedHost, uri: str, *plugins: object) -> Connection:
    registry = Registry()
    for plugin in plugins:
        registry.register(plugin)
    return open_connection(uri, host=host, registry=registry)


def test_a_device_half_way_home_is_not_lent_again(host: SimulatedHost) -> None:
    """Who has it is asked again, and answers; that it was unbound already does not change."""
    with connect(host, "guests:///system", Brings(Guests())) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        host.on_write("*/e1000e/bind", errno=errno.EIO)
        with pytest.raises(ReattachError, match=NIC):
            conn.reattach_hostdevs("vm1")
        assert host.snapshot()[NIC]["kernel_driver"] is None
        try:
            Guests.told.append(NIC)
            for call in (lambda: conn.reattach_hostdevs("vm1"), conn.recover):
                with pytest.raises(ReattachError):
                    call()
                (record,) = host.ledger.records()
                assert (record.phase, record.op) == (Phase.RELEASING, None)
                assert "guest with" in (record.stuck or "")
                assert conn.get_active_pci_hostdev_list() == ()
        finally:
            Guests.told.clear()
        assert conn.recover() == (NIC,)
    assert host.snapshot()[NIC]["kernel_driver"] == "e1000e"


def test_a_device_that_is_stuck_on_its_stub_is_not_lent_again(host: SimulatedHost) -> None:
    """It stands where a guest would have it, but its way home had begun."""
    with connect(host, "guests:///system", Brings(Guests())) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        host.on_write("*/vfio-pci/unbind", errno=errno.EIO)
        with pytest.raises(ReattachError, match=NIC):
            conn.reattach_hostdevs("vm1")
        assert host.snapshot()[NIC]["kernel_driver"] == "vfio-pci"
        try:
            Guests.told.append(NIC)
            with pytest.raises(ReattachError, match=NIC):
                conn.recover()
            (record,) = host.ledger.records()
            assert (record.phase, record.op) == (Phase.RELEASING, None)
            assert record.stuck
        finally:
            Guests.told.clear()


def test_a_device_that_is_stuck_is_not_its_owners_again(
    host: SimulatedHost, conn: Connection
) -> None:
    """It stands on its stub, but how its way home ended nobody knows."""
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.on_write("*/vfio-pci/unbind", errno=errno.EIO, count=2)
    with pytest.raises(ReattachError, match=NIC):
        conn.reattach_hostdevs("vm1")
    before = host.snapshot(), host.ledger.records()
    with pytest.raises(DeviceInUseError, match="stuck"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]), PrepareFlags.ALLOW_SAME_OWNER)
    assert (host.snapshot(), host.ledger.records()) == before
    assert conn.recover() == (NIC,)


def test_nobody_who_cannot_be_asked_is_dead(host: SimulatedHost, conn: Connection) -> None:
    """An operation whose lock cannot be read may be alive: its device is nobody else's."""
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.on_write("*/e1000e/bind", errno=errno.EIO)
    with pytest.raises(ReattachError):
        conn.reattach_hostdevs("vm1")
    with host.ledger.transaction() as transaction:
        (record,) = transaction.records()
        transaction.update(record, record._replace(op="unreadable", stuck=None))
    os.symlink("elsewhere", Path(host.state_dir, "op", "unreadable"))
    before = host.snapshot(), host.ledger.records()
    for call in (
        conn.recover,
        lambda: conn.reattach_hostdevs("vm1"),
        lambda: conn.prepare_hostdevs(Domain("vm2", [NIC])),
        lambda: conn.forget_device(NIC),
    ):
        with pytest.raises(StateError, match="cannot tell whether operation unreadable is alive"):
            call()
        assert (host.snapshot(), host.ledger.records()) == before


def test_one_that_is_late_on_its_way_home_is_not_lent_again(host: SimulatedHost) -> None:
    """Interrupted before that could be told: its lane takes it home all the same."""
    before, limits = host.snapshot(), Deadlines(unbind=0.2)
    with connect(host, "qemu:///system", hostdev_qemu) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.on_write("*/vfio-pci/unbind", hang=True)
    moments: list[str] = []

    def watch(moment: str) -> None:
        if moment == "before transaction" and moments == [
            "before write bus/pci/drivers/vfio-pci/unbind"
        ]:
            moments.append("interrupted")
            raise KeyboardInterrupt
        if moment.endswith("vfio-pci/unbind"):
            moments.append(moment)

    registry = make_registry()
    with open_connection("qemu:///system", host=host, registry=registry, deadlines=limits) as conn:
        conn.host.watch(watch)
        with pytest.raises(KeyboardInterrupt):
            conn.reattach_hostdevs("vm1")
        conn.host.watch(None)
        (record,) = host.ledger.records()
        assert record.phase is Phase.RELEASING
        assert conn.get_active_pci_hostdev_list() == ()
        host.wait_hanging()
        host.release()
        wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


class Telling(LocalHostdevDriver):
    """Does something of its own about a device."""

    name = "telling"
    uri_schemes = ("telling",)
    stubs = ("vfio-pci",)

    @staticmethod
    def place(host: Host, name: str) -> Path:
        return Path(host.path(f"run/told-{name}"))

    def extra_steps(self, host: Host, device: PCIDevice) -> Sequence[BackendStep]:
        return [BackendStep("tell", device.name)]

    def run_step(self, host: Host, step: BackendStep) -> None:
        self.place(host, step.device).touch()

    def undo_step(self, host: Host, step: BackendStep) -> None:
        self.place(host, step.device).unlink(missing_ok=True)


def test_what_only_its_driver_can_undo_waits_for_it(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect(host, "telling:///system", Brings(Telling())) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with host.ledger.transaction() as transaction:
        (record,) = transaction.records()
        half = record._replace(phase=Phase.PREPARING, op="of a process that was killed")
        transaction.update(record, half)
    with connect(host, "qemu:///system", hostdev_qemu) as conn:
        with pytest.raises(ReattachError, match=NIC):
            conn.recover()
        (record,) = host.ledger.records()
        assert "'telling', which is not loaded" in (record.stuck or "")
        assert Telling.place(host, NIC).exists()
    with connect(host, "qemu:///system", hostdev_qemu, Brings(Telling())) as conn:
        assert conn.recover() == (NIC,)
    assert not Telling.place(host, NIC).exists()
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_guest_of_a_driver_that_is_not_loaded_keeps_its_device(tmp_path: Path) -> None:
    """Without an IOMMU group nobody but its driver can tell whether a guest has it."""
    host = SimulatedHost.create(tmp_path / "host", dom0=True)
    host.add_pci(NIC, kernel_driver="e1000e")
    with connect(host, "xen:///system", hostdev_libxl) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with host.ledger.transaction() as transaction:
        (record,) = transaction.records()
        transaction.update(record, record._replace(phase=Phase.RELEASING, op="of a dead one"))
    before = host.snapshot()
    with connect(host, "qemu:///system", hostdev_qemu) as conn:
        with pytest.raises(ReattachError) as caught:
            conn.recover()
        assert "driver 'libxl', which is not loaded" in str(caught.value.exceptions[0])
        assert host.snapshot() == before
    with connect(host, "xen:///system", hostdev_libxl) as conn:
        assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot()[NIC]["kernel_driver"] == "e1000e"


def test_a_sibling_that_is_stuck_is_not_swept_along(host: SimulatedHost) -> None:
    """The way home of its group's last member does not hide that its own has failed."""
    host.add_pci(GPU, kernel_driver="nouveau", iommu_group=3)
    host.add_pci(SOUND, kernel_driver="snd_hda_intel", iommu_group=3)
    with connect(host, "qemu:///system", hostdev_qemu) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)
        host.on_write("*/snd_hda_intel/bind", errno=errno.EIO)
        with pytest.raises(ReattachError, match=SOUND) as caught:
            conn.reattach_hostdevs("vm1")
        assert len(caught.value.exceptions) == 1
        (record,) = host.ledger.records()
        assert (record.address, record.op) == (SOUND, None)
        assert "EIO" in (record.stuck or "")
        assert host.snapshot()[SOUND]["kernel_driver"] is None
        assert conn.recover() == (SOUND,)


class Interrupted:
    """Ctrl-C comes while the plugins are told of a way home that has not begun."""

    @hookimpl
    def hostdev_before_reattach(self) -> None:
        raise KeyboardInterrupt


def test_a_return_that_is_interrupted_before_it_begins_leaves_all_lent(host: SimulatedHost) -> None:
    with connect(host, "qemu:///system", hostdev_qemu, Interrupted()) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        before = host.snapshot(), host.ledger.records()
        with pytest.raises(KeyboardInterrupt):
            conn.reattach_hostdevs("vm1")
        assert (host.snapshot(), host.ledger.records()) == before
    assert operations.list_ids(host.state_dir) == []
