"""What comes late: nodes that a guest opens, interfaces of a card that went home; and asking udev."""

import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    Domain,
    Host,
    HostdevDriver,
    InputError,
    LocalHostdevDriver,
    NotAssignableError,
    PCIDevice,
    Registry,
    StateError,
    USBDevice,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC, OTHER


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1, net="eth0")
    host.add_pci(OTHER, id="144d:a808", class_="010802", kernel_driver="nvme", block="nvme0n1")
    return host


def connect(host: SimulatedHost, *, worker: bool = False) -> Connection:
    return open_connection("qemu:///system", host=host, worker=worker)


@pytest.mark.parametrize("worker", [False, True])
def test_a_device_is_lent_when_its_node_is_there(host: SimulatedHost, *, worker: bool) -> None:
    before = host.snapshot()
    host.late_nodes("vfio/1", 0.3)
    with connect(host, worker=worker) as conn:
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert assignment.node == host.path("dev/vfio/1")
        assert os.path.exists(host.path("dev/vfio/1"))
        assert conn.reattach_hostdevs("vm1") == (NIC,)
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_a_usb_device_whose_node_is_late(host: SimulatedHost) -> None:
    host.late_nodes("bus/usb/*", 0.3, count=9)
    host.add_usb("1-1")
    with connect(host) as conn:
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", ["1-1"]))
        assert assignment.node is not None
        assert os.path.exists(assignment.node)
        conn.reattach_hostdevs("vm1")


@pytest.mark.long
def test_a_node_that_never_comes_is_named_and_everything_undone(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.deadlines = Deadlines(attribute=6)
    host.late_nodes("vfio/1", 10_000)
    with connect(host) as conn:
        with pytest.raises(NotAssignableError, match="has no node") as raised:
            conn.prepare_hostdevs(Domain("vm1", [OTHER, NIC]))
        assert (raised.value.device, raised.value.rule) == (NIC, "no-node")
        assert raised.value.evidence == (host.path("dev/vfio/1"),)
        assert (host.snapshot(), host.ledger.records()) == (before, [])
        conn.prepare_hostdevs(Domain("vm1", [NIC]))  # the next node is made at once
        conn.reattach_hostdevs("vm1")


def test_a_device_that_is_pulled_while_its_node_is_waited_for(host: SimulatedHost) -> None:
    """Its node never comes: the wait ends, and says why."""
    others = {name: was for name, was in host.snapshot().items() if name != NIC}
    host.late_nodes("vfio/1", 10_000)
    other = SimulatedHost.open(host.root)

    def pull(moment: str) -> None:
        if moment == "after write bus/pci/drivers/vfio-pci/bind":
            threading.Timer(0.5, lambda: other.unplug(NIC)).start()

    host.watch(pull)
    with connect(host) as conn, pytest.raises(StateError, match=f"{NIC} was unplugged meanwhile"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert (host.snapshot(), host.ledger.records()) == (others, [])


def test_vfio_is_tried_when_its_late_node_is_there(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.late_nodes("vfio/1", 0.3)
    host.on_write("vfio", errno=errno.EPERM, value="dev/vfio/1")
    with connect(host) as conn:
        with pytest.raises(NotAssignableError) as raised:
            conn.prepare_hostdevs(Domain("vm1", [OTHER, NIC]))
        assert (raised.value.device, raised.value.rule) == (NIC, "vfio-refuses")
        assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_the_container_of_vfio_is_waited_for_where_the_kernel_has_it(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.deadlines = Deadlines(attribute=1)
    os.unlink(host.path("dev/vfio/vfio"))
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))  # a kernel that has none tries nothing
        conn.reattach_hostdevs("vm1")
        Path(host.path("sys/class/misc/vfio")).mkdir(parents=True)
        with pytest.raises(NotAssignableError, match="has no node") as raised:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert (raised.value.device, raised.value.rule) == (NIC, "no-node")
    assert raised.value.evidence == (host.path("dev/vfio/vfio"),)
    assert (host.snapshot(), host.ledger.records()) == (before, [])


class Nameless(LocalHostdevDriver):
    """Names no node: what its hypervisor opens it finds by itself."""

    name = "nameless"
    uri_schemes = ("nameless",)
    stubs = ("vfio-pci",)

    @hookimpl
    def hostdev_drivers(self) -> list[HostdevDriver]:
        """A plugin by itself."""
        return [self]

    def node(self, host: Host, device: PCIDevice | USBDevice) -> None:
        """None."""
        del host, device

    def arguments(self, device: PCIDevice | USBDevice, node: str | None) -> tuple[str, ...]:
        """The address alone."""
        del node
        return (device.name,)


def test_a_node_that_never_comes_is_no_pass_for_a_backend_that_names_none(
    host: SimulatedHost,
) -> None:
    before = host.snapshot()
    host.deadlines = Deadlines(attribute=1)
    host.late_nodes("vfio/1", 10_000)
    registry = Registry()
    registry.register(Nameless())
    with (
        open_connection("nameless:///system", host=host, registry=registry) as conn,
        pytest.raises(NotAssignableError) as raised,
    ):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert (raised.value.device, raised.value.rule) == (NIC, "no-node")
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_what_a_returned_card_brings_can_be_waited_for(host: SimulatedHost) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER]))
        assert host.udev.settle(NIC, 0.0)  # on its stub: nothing is promised
        host.late_nodes("net/eth0", 0.3)
        conn.reattach_hostdevs("vm1")
        assert not host.sysfs.exists("class/net/eth0")
        assert not host.udev.settle(NIC, 0.0)
        assert host.udev.settle(NIC, 60.0)
        assert host.sysfs.exists("class/net/eth0")
        assert host.udev.settle(OTHER, 60.0, "block")
        assert not host.udev.settle(OTHER, 0.0, "net")
        assert not host.udev.settle("0000:0f:00.0", 0.0, "net")


def test_udev_is_done_when_it_has_written_it_down(host: SimulatedHost) -> None:
    data = Path(host.path("run/udev/data"))
    data.mkdir(parents=True)
    assert not host.udev.settle(OTHER, 0.0)
    number = host.sysfs.read("class/block/nvme0n1/dev")
    (data / f"b{number}").write_text("S:disk/by-id/x\nE:ID_FS_TYPE=ext4\nE:ID_MODEL=a=b\nG:tag\n")
    assert host.udev.settle(OTHER, 0.0)
    wanted = {"ID_FS_TYPE": "ext4", "ID_MODEL": "a=b"}
    assert host.udev.recorded("class/block/nvme0n1") == wanted
    assert host.udev.recorded(host.sysfs.path("class/block/nvme0n1")) == wanted
    assert wanted.items() <= host.udev.properties(host.sysfs.path("class/block/nvme0n1")).items()
    assert host.udev.recorded("class/block/none") == {}


def test_an_interface_that_is_about_to_get_another_name_is_not_done(host: SimulatedHost) -> None:
    data = Path(host.path("run/udev/data"))
    data.mkdir(parents=True)
    entry = data / f"n{host.sysfs.read('class/net/eth0/ifindex')}"
    entry.write_text("I:4711\nE:ID_NET_NAME=enp1s0\nE:ID_RENAMING=1\nG:systemd\n")
    assert not host.udev.settle(NIC, 0.0)
    entry.write_text("I:4711\nE:ID_NET_NAME=enp1s0\nE:ID_PROCESSING=1\nG:systemd\n")
    assert not host.udev.settle(NIC, 0.0)
    entry.write_text("I:4711\nE:ID_NET_NAME=enp1s0\nG:systemd\n")
    assert host.udev.settle(NIC, 0.0)


def test_an_interface_that_udev_could_not_rename_is_done(host: SimulatedHost) -> None:
    """The name was taken: systemd-udevd leaves its mark, and has nothing more to do."""
    data, queue = (Path(host.path(f"run/udev/{name}")) for name in ("data", "queue"))
    data.mkdir(parents=True)
    entry = data / f"n{host.sysfs.read('class/net/eth0/ifindex')}"
    entry.write_text("I:4711\nE:ID_NET_NAME=enp1s0\nE:ID_RENAMING=1\nG:systemd\n")
    queue.touch()
    assert not host.udev.settle(NIC, 1.5)
    queue.unlink()
    assert host.udev.settle(NIC, 60.0)


def test_what_is_not_written_down_yet_is_not_done(host: SimulatedHost) -> None:
    """It comes just after it was looked for, of an interface that is about to get another name."""
    data = Path(host.path("run/udev/data"))
    data.mkdir(parents=True)
    entry = data / f"n{host.sysfs.read('class/net/eth0/ifindex')}"
    entry.write_text("I:4711\nE:ID_NET_NAME=enp1s0\nE:ID_RENAMING=1\nG:systemd\n")

    def watch(told: str) -> None:
        if told == f"read {entry}":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    host.watch_reads(watch)
    assert not host.udev.settle(NIC, 0.0)


def test_what_is_pulled_before_its_node_came_leaves_none(host: SimulatedHost) -> None:
    host.late_nodes("bus/usb/*", 0.01, count=9)
    host.add_usb("1-1", device=7)
    host.unplug("1-1")
    assert not host.udev.wait_for(host.path("dev/bus/usb/001/007"), 0.1)


@pytest.mark.parametrize("name", ["0000:0f:00.0", "0f:00.0", "9-9"])
def test_what_is_not_there_has_not_settled(host: SimulatedHost, name: str) -> None:
    assert not host.udev.settle(name, 0.0)


def test_a_short_address_is_the_same_device(host: SimulatedHost) -> None:
    host.late_nodes("net/*", 60.0)
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver/unbind", NIC)
    assert host.udev.settle(NIC[5:], 0.0)  # nobody makes anything of it
    host.sysfs.write("bus/pci/drivers/e1000e/bind", NIC)
    assert not host.udev.settle(NIC[5:], 0.0)
    assert not host.udev.settle(NIC, 0.0)


@pytest.mark.parametrize("timeout", [-1, float("nan"), None, "soon"])
def test_a_time_that_is_none_is_refused(host: SimulatedHost, timeout: Any) -> None:
    with pytest.raises(InputError, match="timeout="):
        host.udev.settle(NIC, timeout)
    with pytest.raises(InputError, match="timeout="):
        host.udev.wait_for("/dev/null", timeout)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sends to udev's group")
def test_events_go_on_after_a_message_that_is_not_udevs() -> None:
    events = Host().udev.events("hostdev-test")
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.extend(events), daemon=True)
    thread.start()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as netlink:  # NETLINK_KOBJECT_UEVENT
        for _ in range(3):
            netlink.sendto(b"no message of udev's\0", (0, 2))
    thread.join(1.0)
    assert (thread.is_alive(), seen) == (True, [])
