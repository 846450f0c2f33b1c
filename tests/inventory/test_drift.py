"""What changed behind hostdev's back is reported, and never lent or touched."""

from contextlib import suppress
from itertools import count

import pytest

from hostdev_core import (
    Connection,
    DeviceNotFoundError,
    Domain,
    KernelError,
    PrepareFlags,
    ReattachError,
    StateError,
    USBHostdev,
)
from hostdev_core.inventory.drift import find_drift
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC


def test_reload_reports_what_changed_behind_our_back(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert conn.reload() == ()
    host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", NIC)
    host.unplug(DISK)
    drifts = {drift.address: drift.what for drift in conn.reload()}
    assert drifts == {NIC: "rebound", DISK: "gone"}
    host.add_pci(DISK, id="10de:2204", class_="030000")
    drifts = {drift.address: drift.what for drift in conn.reload()}
    assert drifts == {NIC: "rebound", DISK: "replaced"}
    assert sorted(conn.reattach_hostdevs("vm1")) == [NIC, DISK]


def test_what_is_given_back_meanwhile_has_not_drifted(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    seen = host.ledger.records()
    conn.reattach_hostdevs("vm1")
    assert find_drift(host, seen) == []


def test_what_is_not_recognised_is_left_alone(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "uio_pci_generic\n")
    drifted = host.snapshot()
    with pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    (error,) = raised.value.exceptions
    assert isinstance(error, StateError)
    assert "uio_pci_generic" in str(error)
    assert host.snapshot() == drifted | {DISK: before[DISK]}
    (record,) = host.ledger.records()
    assert record.stuck is not None
    assert record.owner is not None
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "vfio-pci\n")
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_detached_device_that_was_replaced_is_not_lent(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.detach_device(NIC)
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="vfio-pci", iommu_group=1)
    before = host.snapshot()
    with pytest.raises(StateError, match="forget"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.snapshot() == before


def test_a_card_that_was_replaced_while_lent_is_not_lent_again(
    host: SimulatedHost, conn: Connection
) -> None:
    host.add_usb("1-1", serial="1")
    devices = [NIC, USBHostdev(port="1-1")]
    conn.prepare_hostdevs(Domain("vm1", devices))
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.unplug("1-1")
    host.add_usb("1-1", serial="2")
    before = host.snapshot()
    for device in devices:
        with pytest.raises(StateError, match="replaced"):
            conn.prepare_hostdevs(Domain("vm1", [device]), PrepareFlags.ALLOW_SAME_OWNER)
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_detached_device_that_was_replaced_is_not_detached_already(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.detach_device(NIC)
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    with pytest.raises(StateError, match="replaced"):
        conn.detach_device(NIC)
    conn.reattach_device(NIC)
    assert host.ledger.records() == []


def replace_after(host: SimulatedHost, conn: Connection, moment: int) -> list[str]:
    """Another card is plugged in at the address of NIC once the nth write of `conn` has returned."""
    told: list[str] = []

    def watch(what: str) -> None:
        if what.startswith("after write"):
            told.append(what)
            if len(told) == moment:
                host.unplug(NIC)
                host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)

    conn.host.watch(watch)
    return told


def test_a_card_that_is_replaced_in_the_middle_is_not_touched(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    for moment in count(1):
        told = replace_after(host, conn, moment)
        with suppress(KernelError, StateError, DeviceNotFoundError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before
        assert host.ledger.records() == []
        if len(told) < moment:
            break
