"""Recovery never undoes the work of a live operation, whatever its process looks like."""

from pathlib import Path

import pytest

from hostdev_core import Connection, DeviceInUseError, Domain
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import kill, leave_behind, running, wait_until
from tests.sample import DISK, NIC


def state_of(pid: int | None) -> str:
    """The letter in /proc/PID/stat, of the process's first thread (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def check_left_alone(host: SimulatedHost, conn: Connection) -> None:
    """Whoever wants the device, or wants to clear up, is told who is at work, and changes nothing."""
    before, records = host.snapshot(), host.ledger.records()
    assert conn.recover() == ()
    for call in (
        lambda: conn.prepare_hostdevs(Domain("vm2", [NIC])),
        lambda: conn.detach_device(NIC),
        lambda: conn.forget_device(NIC),
    ):
        with pytest.raises(DeviceInUseError, match="prepare vm1"):
            call()
    assert host.snapshot() == before
    assert host.ledger.records() == records


def test_a_zombie_with_a_living_thread_is_alive(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/vfio-pci/bind", hang=True)
    with running(leave_behind, host.root, "vm1", [NIC]) as process:
        wait_until(lambda: state_of(process.pid) == "Z")
        check_left_alone(host, conn)
        host.release()
        process.join(60)
    (lent,) = conn.get_active_pci_hostdev_list()
    assert lent.name == NIC
    assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_its_late_thread_takes_the_device_home(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/vfio-pci/bind", hang=True)
    with running(leave_behind, host.root, "vm1", [NIC, DISK], 3.0) as process:
        wait_until(lambda: state_of(process.pid) == "Z")
        wait_until(lambda: [bool(record.stuck) for record in host.ledger.records()] == [True])
        stuck = host.ledger.records()
        assert conn.recover() == ()
        assert host.ledger.records() == stuck
        host.release()
        process.join(60)
    assert host.ledger.records() == []
    assert host.snapshot() == before


def test_when_its_last_thread_has_ended_it_is_recovered(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/vfio-pci/bind", hang=True)
    with running(leave_behind, host.root, "vm1", [NIC]) as process:
        wait_until(lambda: state_of(process.pid) == "Z")
        check_left_alone(host, conn)
        kill(process)
    assert conn.recover() == (NIC,)
    assert host.snapshot() == before
    assert host.ledger.records() == []
