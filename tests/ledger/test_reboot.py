"""A ledger after a reboot: it is void, and nothing of it is undone."""

from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    HostdevError,
    Registry,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC

FIRST, SECOND = "6c8a3f9e-0a3c-4c59-9e65-2f1bd1c3d5a1", "d41b7c02-77e1-4a0e-8a53-0e94c07a9b11"


def boot(host: SimulatedHost, id: str) -> SimulatedHost:
    """The machine in a boot of this id; its devices are left to the test."""
    path = Path(host.path("proc/sys/kernel/random/boot_id"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{id}\n")
    return SimulatedHost.open(host.root)


def test_a_ledger_that_outlives_a_reboot_is_void(
    host: SimulatedHost, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    untouched = host.snapshot()
    with open_connection("qemu:///system", host=boot(host, FIRST), registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.detach_device(DISK)
        assert [d.name for d in conn.get_active_pci_hostdev_list()] == [NIC]
    for device, driver in ((NIC, "e1000e"), (DISK, "nvme")):  # as the next boot binds them
        host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", device)
        host.sysfs.write(f"bus/pci/devices/{device}/driver_override", "\n")
        host.sysfs.write(f"bus/pci/drivers/{driver}/bind", device)
    host.clear_writes()
    again = boot(host, SECOND)
    with open_connection("qemu:///system", host=again, registry=registry) as conn:
        assert conn.get_active_pci_hostdev_list() == conn.get_inactive_pci_hostdev_list() == ()
        assert conn.reload() == conn.reattach_hostdevs("vm1") == conn.recover() == ()
        assert host.writes() == []
        assert "2 records are void" in caplog.text
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
        assert [(r.address, r.owner and r.owner.domain) for r in again.ledger.records()] == [
            (NIC, "vm2")
        ]
        conn.reattach_hostdevs("vm2")
    assert host.snapshot() == untouched


def test_what_a_dead_operation_left_before_a_reboot_is_not_undone(
    host: SimulatedHost, registry: Registry
) -> None:
    before = boot(host, FIRST)
    host.on_write("*/vfio-pci/bind", errno=5)
    host.on_write("*/e1000e/bind", errno=5)
    with open_connection("qemu:///system", host=before, registry=registry) as conn:
        with pytest.raises(HostdevError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert [record.stuck is not None for record in before.ledger.records()] == [True]
    found = host.snapshot()
    host.clear_writes()
    with open_connection("qemu:///system", host=boot(host, SECOND), registry=registry) as conn:
        assert conn.recover() == ()
        conn.prepare_hostdevs(Domain("vm1", [DISK]))
        conn.reattach_hostdevs("vm1")
    assert not [path for path, _ in host.writes() if "e1000e" in path or NIC in path]
    assert host.snapshot() == found


def test_where_the_boot_is_not_known_the_ledger_is_believed(
    host: SimulatedHost, conn: Connection, registry: Registry
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with open_connection("qemu:///system", host=boot(host, FIRST), registry=registry) as other:
        other.prepare_hostdevs(Domain("vm2", [DISK]))
        assert other.reattach_hostdevs("vm1") == (NIC,)
    with open_connection("qemu:///system", host=boot(host, SECOND), registry=registry) as other:
        assert other.get_active_pci_hostdev_list() == ()
    assert [d.name for d in conn.get_active_pci_hostdev_list()] == [DISK]
    conn.reattach_hostdevs("vm2")
