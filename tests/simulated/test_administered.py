"""What a test may let become of a simulated host: virtual functions, a reboot, a user, a full disk."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Domain,
    InputError,
    KernelError,
    NotPermittedError,
    ReattachError,
    StateError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost, make_sample
from tests.sample import NIC

PF = "0000:0a:00.0"
MACHINES = Path(__file__).parents[1] / "machines"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = make_sample(tmp_path / "host")
    host.add_pci(PF, id="8086:1521", kernel_driver="igb", sriov_totalvfs=4)
    return host


def test_virtual_functions_come_and_go(host: SimulatedHost) -> None:
    before = host.snapshot()
    made = host.set_virtual_functions("0a:00.0", 2)
    assert made == ("0000:0a:00.1", "0000:0a:00.2")
    assert {host.snapshot()[name]["kernel_driver"] for name in made} == {"igb"}
    with pytest.raises(KernelError) as caught:
        host.set_virtual_functions(PF, 3)
    assert caught.value.errno == errno.EBUSY
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [made[0]]))
        conn.reattach_hostdevs("vm1")
    assert host.set_virtual_functions(PF, 0) == ()
    assert host.snapshot() == before


def test_virtual_functions_that_there_cannot_be(host: SimulatedHost) -> None:
    with pytest.raises(KernelError) as caught:
        host.set_virtual_functions(PF, 5)
    assert caught.value.errno == errno.ERANGE
    with pytest.raises(InputError, match="sriov_totalvfs"):
        host.set_virtual_functions(NIC, 1)


@pytest.mark.parametrize(("uri", "dom0"), [("qemu:///system", False), ("xen:///system", True)])
def test_after_a_reboot_everything_is_as_it_was_plugged_in(
    tmp_path: Path, uri: str, dom0: bool
) -> None:
    host = make_sample(tmp_path / "host", dom0=dom0)
    before = host.snapshot()
    with open_connection(uri, host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, "1-1"]))
        conn.detach_device("0000:02:00.0")
    host.sysfs.write("bus/pci/devices/0000:05:00.0/driver_override", "none\n")
    host.on_write("*", errno=errno.EIO)
    host.reboot()
    assert host.snapshot() == before
    again = SimulatedHost.open(host.root)
    assert again.ledger.records() == []
    with open_connection(uri, host=again) as conn:
        assert conn.get_active_pci_hostdev_list() == conn.get_inactive_pci_hostdev_list() == ()
        conn.prepare_hostdevs(Domain("vm1", [NIC, "1-1"]))
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_reboot_ends_virtual_functions_and_begins_a_new_boot(host: SimulatedHost) -> None:
    host.set_virtual_functions(PF, 2)
    host.reboot()
    first = SimulatedHost.open(host.root).boot_id
    assert not [name for name in host.snapshot() if name.startswith("0000:0a:00.") and name != PF]
    host.reboot()
    assert first not in {None, SimulatedHost.open(host.root).boot_id}


@pytest.mark.parametrize("name", ["arm", "dom0", "laptop", "server", "vmd"])
def test_a_captured_machine_after_a_reboot(tmp_path: Path, name: str) -> None:
    host = SimulatedHost.replay(MACHINES / f"{name}.json", tmp_path / "host")
    before = host.snapshot()
    virtual = {each for each in before if host.sysfs.exists(f"bus/pci/devices/{each}/physfn")}
    host.reboot()
    assert host.snapshot() == {k: v for k, v in before.items() if k not in virtual}


def test_modules_that_came_later_are_gone_after_a_reboot(host: SimulatedHost) -> None:
    host.add_driver("own-stub", module="own_hypervisor", loaded=False)
    host.modules.load("own_hypervisor")
    assert host.sysfs.exists("bus/pci/drivers/own-stub")
    host.reboot()
    assert not host.sysfs.exists("bus/pci/drivers/own-stub")
    assert host.sysfs.exists("bus/pci/drivers/igb")


def test_a_user_who_is_not_root_may_look_and_change_nothing(host: SimulatedHost) -> None:
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    before = host.snapshot()
    user = host.as_user(1000)
    with open_connection("qemu:///system", host=user) as conn:
        assert {device.name for device in conn.list_devices()} >= {NIC, PF}
        for change in (
            lambda: conn.prepare_hostdevs(Domain("vm2", [PF])),
            lambda: conn.reattach_hostdevs("vm1"),
            lambda: conn.detach_device(PF),
            lambda: conn.recover(),
            lambda: conn.get_active_pci_hostdev_list(),  # the ledger is root's
        ):
            with pytest.raises(NotPermittedError, match="run as root"):
                change()
        with pytest.raises(KernelError) as caught:
            user.sysfs.write("bus/pci/drivers/igb/unbind", PF)
        assert caught.value.errno == errno.EACCES
        with pytest.raises(OSError, match="Permission denied"):
            user.open_node("dev/vfio/1")
    assert host.snapshot() == before
    with pytest.raises(InputError, match="is root"):
        host.as_user(0)
    with pytest.raises(InputError, match="out of range"):
        host.as_user(-1)


@pytest.mark.parametrize(
    "fault", [{"errno": 0}, {"errno": "EIO"}, {"count": 0}, {"delay": -1.0}], ids=str
)
def test_a_fault_that_cannot_be(host: SimulatedHost, fault: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        host.on_write("*", **fault)


def test_a_held_device_may_be_named_in_short(host: SimulatedHost) -> None:
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        with host.hold("01:00.0"), pytest.raises(ReattachError):
            conn.reattach_hostdevs("vm1")


def test_a_full_disk_of_the_ledger_changes_nothing(host: SimulatedHost) -> None:
    before = host.snapshot()
    with open_connection("qemu:///system", host=host) as conn:
        host.on_write("ledger", errno=errno.ENOSPC)
        with pytest.raises(StateError, match="database or disk is full"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert host.snapshot() == before
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        lent = host.snapshot()
        host.on_write("ledger", errno=errno.ENOSPC)
        with pytest.raises((StateError, ReattachError)):
            conn.reattach_hostdevs("vm1")
        assert host.snapshot() == lent
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


@pytest.mark.parametrize("threads", [False, True], ids=["forked", "a new interpreter"])
def test_a_user_has_no_more_rights_in_a_worker(host: SimulatedHost, threads: bool) -> None:
    before = host.snapshot()
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    if threads:
        other.start()
    try:
        user = host.as_user(1000)
        with open_connection("qemu:///system", host=user, worker=True) as conn:
            with pytest.raises(NotPermittedError, match="user 1000"):
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
            with pytest.raises(NotPermittedError):
                conn.detach_device(NIC)
    finally:
        done.set()
    assert host.snapshot() == before
    assert host.ledger.records() == []
