"""A VFIO node that the kernel has and nobody sees: who holds it cannot be known, and nobody guesses."""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    NotAssignableError,
    ReattachError,
    StateError,
    USBHostdev,
    VetoError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.users import having_open
from tests.sample import NIC, OTHER


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host", kernel_release="6.6.0-simulated")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(OTHER, kernel_driver="e1000e", iommu_group=2)
    return host


def node_of(host: SimulatedHost, address: str) -> Path:
    (name,) = host.sysfs.names(f"bus/pci/devices/{address}/vfio-dev")
    return Path(host.path(f"dev/vfio/devices/{name}"))


def stuck_with(error: ReattachError) -> BaseException:
    (only,) = error.exceptions
    return only


def test_a_lent_device_whose_own_node_is_not_seen_stays_lent(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER]))
    lent, node = host.snapshot(), node_of(host, NIC)
    with having_open(str(node)):
        os.rename(node, f"{node}.elsewhere")  # its /dev is another one than ours
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
    error = stuck_with(raised.value)
    assert isinstance(error, StateError)
    assert f"{NIC}: the kernel has a VFIO node" in str(error)
    assert str(node) in str(error)
    assert host.snapshot()[NIC] == lent[NIC]
    assert host.snapshot()[OTHER] == before[OTHER]
    assert [record.address for record in host.ledger.records()] == [NIC]
    os.rename(f"{node}.elsewhere", node)
    conn.reattach_hostdevs("vm1")
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_the_node_of_another_device_in_its_place_tells_nothing(
    host: SimulatedHost, conn: Connection
) -> None:
    """Left from before: /dev/null stands for it, which nobody needs a right to make."""
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER]))
    lent, own, group = host.snapshot(), node_of(host, NIC), Path(host.path("dev/vfio/2"))
    for node in (own, group):
        os.rename(node, f"{node}.elsewhere")
        node.symlink_to("/dev/null")
    with pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    for address, node in ((NIC, own), (OTHER, group)):
        error = raised.value.by_device[address]
        assert isinstance(error, StateError)
        assert f"{node} is the node of another device (1:3)" in str(error)
    assert host.snapshot() == lent
    for node in (own, group):
        os.rename(f"{node}.elsewhere", node)
    conn.reattach_hostdevs("vm1")
    assert (host.snapshot(), host.ledger.records()) == (before, [])


@pytest.mark.parametrize("name", ["devices/vfio0", "1"])
def test_nothing_is_lent_where_another_device_s_node_stands(
    host: SimulatedHost, conn: Connection, name: str
) -> None:
    before, node = host.snapshot(), Path(host.path(f"dev/vfio/{name}"))

    def exchange(moment: str) -> None:
        if moment == "after write bus/pci/drivers/vfio-pci/bind":
            node.unlink()
            node.symlink_to("/dev/null")

    host.watch(exchange)
    host.deadlines = Deadlines(attribute=1)
    with pytest.raises(NotAssignableError, match="another device's stands there") as raised:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert (raised.value.rule, raised.value.evidence) == ("no-node", (str(node),))
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_the_right_node_is_waited_for(host: SimulatedHost, tmp_path: Path) -> None:
    node, right = tmp_path / "node", tmp_path / "right"
    node.symlink_to("/dev/null")
    assert host.udev.wait_for(str(node), 0.0, "1:3")
    assert host.udev.wait_for(str(node), 0.0)
    assert not host.udev.wait_for(str(node), 0.0, "1:5")
    right.symlink_to("/dev/zero")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(host.udev.wait_for, str(node), 60.0, "1:5")
        os.rename(right, node)
        assert waiting.result()


def calls(conn: Connection) -> dict[str, Callable[[], object]]:
    domain = Domain("vm1", [NIC])
    return {
        "plan": lambda: conn.plan(domain),
        "prepare": lambda: conn.prepare_hostdevs(domain),
        "reset": lambda: conn.reset_device(NIC),
        "reattach": lambda: conn.reattach_device(NIC),
    }


@pytest.mark.parametrize("what", ["plan", "prepare", "reset", "reattach"])
def test_nor_is_a_detached_one_touched(host: SimulatedHost, conn: Connection, what: str) -> None:
    conn.detach_device(NIC)
    detached, records, node = host.snapshot(), host.ledger.records(), node_of(host, NIC)
    os.unlink(node)
    with pytest.raises((StateError, ReattachError)) as raised:
        calls(conn)[what]()
    found = raised.value
    error = stuck_with(found) if isinstance(found, ReattachError) else found
    assert "cannot be seen" in str(error)
    assert host.snapshot() == detached
    assert [r._replace(since=0) for r in host.ledger.records()] == [
        r._replace(since=0) for r in records
    ]
    node.touch()
    calls(conn)[what]()


def test_one_that_is_late_is_waited_for(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    host.late_nodes("vfio/devices/*", 0.5)
    conn.detach_device(NIC)
    conn.reattach_device(NIC)
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_what_never_was_lent_goes_home_without_its_node(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    host.deadlines = Deadlines(attribute=1)
    host.late_nodes("vfio/*", 10_000, count=2)  # the group's, and its own
    with pytest.raises(NotAssignableError) as raised:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert raised.value.rule == "no-node"
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_what_could_not_be_given_back_is_not_lent(host: SimulatedHost, conn: Connection) -> None:
    """A container that has its group's node alone."""
    before = host.snapshot()
    host.deadlines = Deadlines(attribute=1)
    host.late_nodes("vfio/devices/*", 10_000)
    with pytest.raises(NotAssignableError) as raised:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert raised.value.rule == "no-node"
    assert "vfio/devices/vfio" in " ".join(raised.value.evidence)
    assert (host.snapshot(), host.ledger.records()) == (before, [])


@pytest.mark.parametrize("release", ["6.5.13-old", "6.1.0-18-amd64"])
def test_a_kernel_without_such_nodes_has_none_to_see(tmp_path: Path, release: str) -> None:
    host = SimulatedHost.create(tmp_path / "older", kernel_release=release)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    before = host.snapshot()
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert not node_of(host, NIC).exists()
        conn.reattach_hostdevs("vm1")
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_who_has_the_node_is_named(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with having_open(str(node_of(host, NIC))) as pid, pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    error = stuck_with(raised.value)
    assert isinstance(error, DeviceInUseError)
    assert f"pid {pid}," in str(error)
    conn.reattach_hostdevs("vm1")


def test_the_nodes_of_a_simulated_kernel_come_and_go(host: SimulatedHost, conn: Connection) -> None:
    conn.detach_device(NIC)
    conn.detach_device(OTHER)
    nodes = [node_of(host, NIC), node_of(host, OTHER)]
    assert [node.exists() for node in nodes] == [True, True]
    host.unplug(NIC)
    conn.reattach_device(OTHER)
    assert [node.exists() for node in nodes] == [False, False]


@pytest.mark.parametrize("how", ["elsewhere", "unknown"])
def test_a_stick_whose_node_is_not_seen_stays_lent(
    host: SimulatedHost, conn: Connection, how: str
) -> None:
    """A program of its guest has it open, and has claimed no interface."""
    stick = host.add_usb("1-1", serial="A1")
    conn.prepare_hostdevs(Domain("vm1", [stick]))
    lent, records = host.snapshot(), host.ledger.records()
    node = Path(host.path(f"dev/bus/usb/{host.sysfs.read('bus/usb/devices/1-1/busnum'):0>3}/"
                          f"{host.sysfs.read('bus/usb/devices/1-1/devnum'):0>3}"))  # fmt: skip
    with having_open(str(node)):
        os.rename(node, f"{node}.elsewhere")
        if how == "unknown":
            node.symlink_to(node)  # a look at it fails
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        assert re.search("cannot (be seen|look at)", str(stuck_with(raised.value)))
        assert str(node) in str(stuck_with(raised.value))
        assert host.snapshot() == lent
        assert host.ledger.records() == records
        os.rename(f"{node}.elsewhere", node)
        with pytest.raises(ReattachError):
            conn.reattach_hostdevs("vm1")
    assert conn.reattach_hostdevs("vm1") == (stick,)
    assert host.ledger.records() == []


def instead(node: Path, how: str) -> None:
    """Something else stands where the node was."""
    os.rename(node, f"{node}.elsewhere")
    if how == "directory":
        node.mkdir()
    elif how == "pipe":
        os.mkfifo(node)
    else:
        node.symlink_to(how)


@pytest.mark.parametrize("how", ["directory", "pipe", "/dev/null"])
@pytest.mark.parametrize("what", ["group", "own", "stick"])
def test_what_is_no_node_in_the_place_of_one_tells_nothing(
    host: SimulatedHost, conn: Connection, what: str, how: str
) -> None:
    stick = host.add_usb("1-1", serial="A1")
    name = stick if what == "stick" else NIC
    conn.prepare_hostdevs(Domain("vm1", [name]))
    lent, records = host.snapshot(), host.ledger.records()
    places = {"group": "dev/vfio/1", "stick": "dev/bus/usb/001/002"}
    node = Path(host.path(places[what])) if what in places else node_of(host, NIC)
    assert node.is_file()
    instead(node, how)
    with pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    assert str(node) in str(stuck_with(raised.value))
    assert (host.snapshot(), host.ledger.records()) == (lent, records)
    node.rmdir() if how == "directory" else node.unlink()
    os.rename(f"{node}.elsewhere", node)
    assert conn.reattach_hostdevs("vm1") == (name,)


def test_who_has_a_node_of_its_own_elsewhere_is_seen(
    host: SimulatedHost, conn: Connection, tmp_path: Path
) -> None:
    """As in a chroot: the node is the device's by its number, wherever it stands."""
    stick = host.add_usb("1-1", serial="A1")
    jail = tmp_path / "jail"
    os.link(host.path("dev/bus/usb/001/002"), jail)
    with having_open(str(jail)):
        with pytest.raises(VetoError, match=rf"{jail}.*\[in-use\]"):
            conn.prepare_hostdevs(Domain("vm1", [stick]))
        conn.prepare_hostdevs(Domain("vm1", [USBHostdev(port=stick, allow={"in-use"})]))
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        error = stuck_with(raised.value)
        assert isinstance(error, DeviceInUseError)
        assert str(jail) in str(error)
    assert conn.reattach_hostdevs("vm1") == (stick,)
