"""Under Xen: a device whose ledger was lost goes home with its slot of pciback and its key of xenstore."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

import hostdev_libxl
import hostdev_qemu
from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    NotAssignableError,
    Registry,
    StateError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask, run
from tests.helpers.processes import killed_at
from tests.sample import NIC

XEN, QEMU = "xen:///system", "qemu:///system"
KEY = "/libxl/pci/0000-01-00-0/driver_path"
PCIBACK, DEVICE = "bus/pci/drivers/pciback", f"bus/pci/devices/{NIC}"
Snapshot = dict[str, dict[str, object]]


def connect(
    host: SimulatedHost,
    uri: str = XEN,
    plugins: tuple[ModuleType, ...] = (hostdev_libxl, hostdev_qemu),
) -> Connection:
    registry = Registry()
    for plugin in plugins:
        registry.register(plugin)
    return open_connection(uri, host=SimulatedHost.open(host.root), registry=registry)


def machine(folder: Path) -> tuple[SimulatedHost, Snapshot]:
    host = SimulatedHost.create(folder, dom0=True)
    host.add_pci(NIC, id="8086:10d3", kernel_driver="e1000e")
    return host, host.snapshot()


def lost(folder: Path) -> tuple[SimulatedHost, Snapshot]:
    """A device is lent, and the ledger is lost; how everything was found."""
    host, found = machine(folder)
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    shutil.rmtree(host.state_dir)
    return host, found


def traces(folder: Path) -> tuple[SimulatedHost, Snapshot]:
    """The device itself is on its driver; the slot and the key are left of a way home."""
    host, found = machine(folder)
    host.sysfs.write(f"{PCIBACK}/new_slot", NIC)
    host.xenstore.write(KEY, "/sys/bus/pci/drivers/e1000e")
    return host, found


def by_xl(folder: Path) -> tuple[SimulatedHost, Snapshot]:
    """As `xl pci-assignable-add` leaves it; a driver that was loaded later is no obstacle to that."""
    host, found = traces(folder)
    host.sysfs.write("bus/pci/drivers/e1000e/unbind", NIC)
    host.sysfs.write(f"{PCIBACK}/bind", NIC)
    return host, found


def half_home(folder: Path) -> tuple[SimulatedHost, Snapshot]:
    """Its way home had begun: its override names its driver already."""
    host, found = lost(folder)
    host.sysfs.write(f"{DEVICE}/driver_override", "e1000e")
    return host, found


Make = Callable[[Path], tuple[SimulatedHost, Snapshot]]


@pytest.mark.parametrize("uri", [XEN, QEMU])
@pytest.mark.parametrize("make", [lost, traces, half_home])
def test_nothing_is_left(tmp_path: Path, make: Make, uri: str) -> None:
    """Whichever driver is asked: the one that lends from pciback knows what is left there."""
    host, found = make(tmp_path / "dom0")
    done = run("device", "reattach", "--to-host", NIC, "-c", uri, host=host)
    assert (done.returncode, done.stdout) == (0, f"{NIC} is on e1000e, the host's own driver\n")
    assert host.snapshot() == found
    assert host.ledger.records() == []
    again = run("device", "reattach", "--to-host", NIC, "-c", uri, host=host)
    assert "nothing to send home" in again.stderr
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
        conn.reattach_hostdevs("vm2")
    assert host.snapshot() == found


@pytest.mark.parametrize("make", [lost, traces])
def test_a_prepare_names_the_way(tmp_path: Path, make: Make) -> None:
    host, _ = make(tmp_path / "dom0")
    now = host.snapshot()
    with connect(host) as conn, pytest.raises(NotAssignableError) as raised:
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
    assert f"`hostdev device reattach --to-host {NIC}`" in str(raised.value)
    assert host.snapshot() == now


def test_it_goes_where_the_key_says_that_it_was(tmp_path: Path) -> None:
    """Also to a driver that no alias names, and not to the one that an alias does."""
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_driver("out-of-tree", ids=["8086:10d3"])
    host.add_pci(NIC, id="8086:10d3", kernel_driver="out-of-tree")
    found = host.snapshot()
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        shutil.rmtree(host.state_dir)
        conn.reattach_device(NIC, to_host=True)
    assert host.snapshot() == found


def test_one_that_was_hidden_at_boot_does_not_return_to_its_slot(tmp_path: Path) -> None:
    """To a driver that is not known by name: the kernel is asked once the slot is gone."""
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_driver("built-in", module=None, ids=["1af4:1041"])
    host.add_pci(NIC, id="1af4:1041", kernel_driver="built-in")
    found = host.snapshot()
    host.sysfs.write(f"{PCIBACK}/new_slot", NIC)
    host.sysfs.write("bus/pci/drivers/built-in/unbind", NIC)
    host.sysfs.write(f"{PCIBACK}/bind", NIC)
    with connect(host) as conn:
        assert conn.reattach_device(NIC, to_host=True) == (NIC,)
    assert host.snapshot() == found
    assert host.ledger.records() == []


def test_a_slot_alone_of_one_on_its_driver_is_somebody_elses(tmp_path: Path) -> None:
    host, _ = machine(tmp_path / "dom0")
    host.sysfs.write(f"{PCIBACK}/new_slot", NIC)
    now = host.snapshot()
    with connect(host) as conn, pytest.raises(StateError, match="nothing to send home"):
        conn.reattach_device(NIC, to_host=True)
    assert host.snapshot() == now


@pytest.mark.parametrize("uri", [XEN, QEMU])
def test_what_xl_made_assignable_is_left_to_xl(tmp_path: Path, uri: str) -> None:
    """It may be in Xen's quarantine, which nobody sees from here."""
    host, _ = by_xl(tmp_path / "dom0")
    now = host.snapshot()
    wanted = pytest.raises(StateError, match=f"`xl pci-assignable-remove -r {NIC}`")
    with connect(host, uri) as conn, wanted:
        conn.reattach_device(NIC, to_host=True)
    with connect(host) as conn, pytest.raises(NotAssignableError, match="made assignable by xl"):
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
    assert (host.snapshot(), host.ledger.records()) == (now, [])


@pytest.mark.parametrize("uri", [XEN, QEMU])
def test_a_guest_keeps_it(tmp_path: Path, uri: str) -> None:
    host, found = lost(tmp_path / "dom0")
    host.xenstore.write("/local/domain/7/name", "guest")
    host.xenstore.write("/local/domain/0/backend/pci/7/0/dev-0", NIC)
    now = host.snapshot()
    with connect(host, uri) as conn:
        with pytest.raises(DeviceInUseError, match=r"guest \(id 7\)"):
            conn.reattach_device(NIC, to_host=True)
        assert (host.snapshot(), host.ledger.records()) == (now, [])
        host.xenstore.remove("/local/domain/0/backend/pci/7")
        conn.reattach_device(NIC, to_host=True)
    assert host.snapshot() == found


def test_without_the_driver_of_xen_nobody_knows_whether_a_guest_has_it(tmp_path: Path) -> None:
    host, _ = lost(tmp_path / "dom0")
    now = host.snapshot()
    wanted = pytest.raises(StateError, match="no driver that is loaded can tell")
    with connect(host, QEMU, (hostdev_qemu,)) as conn, wanted:
        conn.reattach_device(NIC, to_host=True)
    assert (host.snapshot(), host.ledger.records()) == (now, [])


def send_watched(host: SimulatedHost, watcher: Callable[[str], None]) -> None:
    with connect(host) as conn:
        conn.host.watch(watcher)
        conn.reattach_device(NIC, to_host=True)


@pytest.mark.parametrize("make", [lost, traces])
def test_a_death_at_any_moment_is_made_good(tmp_path: Path, make: Make) -> None:
    number = 0
    for number in count(1):
        host, found = make(tmp_path / f"{number}")
        killed = killed_at(number, partial(send_watched, host))
        began = host.ledger.records() != []
        with connect(host, QEMU) as conn:
            conn.recover()
            assert host.ledger.records() == []
            if began:
                assert host.snapshot() == found
            elif host.snapshot() != found:
                conn.reattach_device(NIC, to_host=True)
        assert host.snapshot() == found
        if not killed:
            break
    assert number > 9


def test_one_that_a_killed_call_left_is_sent_by_the_next(tmp_path: Path) -> None:
    """What that call had begun is its end, too: the device is on its driver then."""
    host, found = lost(tmp_path / "dom0")

    def die(what: str) -> None:
        if what.startswith("after xenstore"):
            os.kill(os.getpid(), signal.SIGKILL)

    if (pid := os.fork()) == 0:
        send_watched(host, die)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert len(host.ledger.records()) == 1
    done = ask("device", "reattach", "--to-host", NIC, "-c", XEN, host=host)
    assert done["outcome"] == "given back"
    assert (host.snapshot(), host.ledger.records()) == (found, [])
