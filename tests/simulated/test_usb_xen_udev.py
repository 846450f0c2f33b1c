"""USB, Xen and udev on a simulated host."""

import errno
import os
import threading
from pathlib import Path

import pytest

from hostdev_core.bus.bus import PATIENCE
from hostdev_core.bus.usb import see_usb
from hostdev_core.bus.usb_texts import USBTexts
from hostdev_core.errors import InputError, InvalidAddressError, KernelError, StateError
from hostdev_core.kernel.sysfs import Sysfs
from hostdev_core.model.device import USBDevice
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC

pytestmark = pytest.mark.quick_cases

CONTROLLER = "0000:00:14.0"
PCIBACK = "bus/pci/drivers/pciback"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return SimulatedHost.create(tmp_path / "host")


@pytest.fixture
def dom0(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=3)
    return host


def list_usb(sysfs: Sysfs) -> list[USBDevice]:
    return USBTexts(sysfs).fill(see_usb(sysfs), PATIENCE)


class TestBelongings:
    def test_they_come_and_go_with_the_host_driver(self, host: SimulatedHost) -> None:
        host.add_pci(
            NIC,
            kernel_driver="nvme",
            block=("nvme0n1", "nvme0n1p1"),
            drm=("card0", "renderD128"),
            sound="pcmC1D0p",
        )
        disk = f"bus/pci/devices/{NIC}/nvme/nvme0/nvme0n1"
        nodes = ("nvme0n1", "nvme0n1p1", "dri/card0", "dri/renderD128", "snd/pcmC1D0p")
        assert all(os.path.exists(host.path(f"dev/{node}")) for node in nodes)
        number = host.sysfs.read(f"{disk}/nvme0n1p1/dev")
        assert os.path.realpath(host.path(f"dev/block/{number}")) == host.path("dev/nvme0n1p1")
        assert host.sysfs.real_path("class/block/nvme0n1") == host.sysfs.real_path(disk)
        assert host.sysfs.exists(f"bus/pci/devices/{NIC}/sound/card1/pcmC1D0p/dev")
        host.sysfs.write(f"bus/pci/devices/{NIC}/driver/unbind", NIC)
        assert not any(os.path.lexists(host.path(f"dev/{node}")) for node in nodes)
        assert not host.sysfs.exists(disk)
        assert os.listdir(host.path("dev/block")) == os.listdir(host.path("dev/char")) == []
        host.sysfs.write("bus/pci/drivers/nvme/bind", NIC)
        assert all(os.path.exists(host.path(f"dev/{node}")) for node in nodes)
        host.unplug(NIC)
        assert not any(os.path.lexists(host.path(f"dev/{node}")) for node in nodes)
        assert host.sysfs.names("class/block") == host.sysfs.names("class/drm") == []

    def test_a_remove_that_hangs_has_taken_them_away(self, host: SimulatedHost) -> None:
        host.add_pci(NIC, kernel_driver="nvme", block="sda", net="eth0")
        host.on_write("*/unbind", hang=True)
        unbind = threading.Thread(
            target=host.sysfs.write, args=(f"bus/pci/devices/{NIC}/driver/unbind", NIC)
        )
        unbind.start()
        host.wait_hanging()
        assert host.sysfs.names("class/block") == host.sysfs.names("class/net") == []
        host.release()
        unbind.join()


class TestUSB:
    def test_a_device_behind_a_hub(self, host: SimulatedHost) -> None:
        host.add_usb("1-1.5", serial="A1", product="Mouse", manufacturer="Maker")
        host.add_usb("1-2", id="0951:1666", kernel_driver="usb-storage")
        path = host.sysfs.real_path("bus/usb/devices/1-1.5")
        assert path == f"devices/pci0000:00/{CONTROLLER}/usb1/1-1/1-1.5"
        assert host.sysfs.read("bus/usb/devices/1-1/bDeviceClass") == "09"
        assert host.sysfs.link("bus/usb/devices/1-1.5:1.0/driver") == "usbhid"
        assert [(one.port, one.ids, one.serial) for one in list_usb(host.sysfs)] == [
            ("1-1.5", "046d:c077", "A1"),
            ("1-2", "0951:1666", None),
        ]
        assert all(Path(host.path(one.node)).exists() for one in list_usb(host.sysfs))
        assert {one.controller for one in list_usb(host.sysfs)} == {CONTROLLER}

    def test_numbers(self, host: SimulatedHost) -> None:
        host.add_usb("2-1")
        host.add_usb("2-2", device=20)
        host.add_usb("2-3")
        assert [one.number for one in list_usb(host.sysfs)] == ["002:002", "002:020", "002:021"]
        host.unplug("2-3")
        host.unplug("2-1")
        host.add_usb("2-1")
        assert [one.number for one in list_usb(host.sysfs)] == ["002:021", "002:020"]

    def test_what_a_killed_process_left_of_a_device_is_not_in_its_way(
        self, host: SimulatedHost
    ) -> None:
        host.add_usb("2-1")
        (one,) = list_usb(host.sysfs)
        host.unplug("2-1")
        node = Path(host.path(one.node))
        node.touch()
        host.add_usb("2-1", device=int(one.number.rpartition(":")[2]))
        assert [again.node for again in list_usb(host.sysfs)] == [one.node]

    def test_ports_are_taken_once(self, host: SimulatedHost) -> None:
        host.add_usb("1-1", hub=True)
        host.add_usb("1-1.1")
        with pytest.raises(InputError, match=r"1-1\.1"):
            host.add_usb("1-1.1")
        with pytest.raises(InvalidAddressError):
            host.add_usb("usb1")
        host.unplug("1-1")
        assert list_usb(host.sysfs) == []
        assert host.sysfs.names("bus/usb/devices") == ["1-0:1.0", "usb1"]

    def test_a_lent_controller_takes_its_devices_along(self, host: SimulatedHost) -> None:
        host.add_usb("3-1", controller="0000:03:00.0")
        before = host.snapshot()
        device = "bus/pci/devices/0000:03:00.0"
        host.sysfs.write(f"{device}/driver/unbind", "0000:03:00.0")
        assert host.sysfs.names("bus/usb/devices") == []
        assert not Path(host.path("dev/bus/usb/003/002")).exists()
        host.sysfs.write("bus/pci/drivers/xhci_hcd/bind", "0000:03:00.0")
        assert host.snapshot() == before
        assert list_usb(host.sysfs)[0].port == "3-1"
        host.unplug("0000:03:00.0")
        assert host.snapshot()["usb"] == {}

    def test_interfaces_are_bound_by_hand(self, host: SimulatedHost) -> None:
        host.add_usb("1-1")
        driver = "bus/usb/drivers/usbhid"
        host.sysfs.write(f"{driver}/unbind", "1-1:1.0")
        assert host.snapshot()["usb"] == {"1-0:1.0": "hub", "1-1:1.0": None}
        for path, value, number in (
            ("unbind", "1-1:1.0", errno.ENODEV),
            ("bind", "9-9:1.0", errno.ENODEV),
        ):
            with pytest.raises(KernelError) as caught:
                host.sysfs.write(f"{driver}/{path}", value)
            assert caught.value.errno == number
        host.sysfs.write(f"{driver}/bind", "1-1:1.0\n")
        assert host.snapshot()["usb"] == {"1-0:1.0": "hub", "1-1:1.0": "usbhid"}


class TestXen:
    def test_a_dom0_has_no_groups(self, dom0: SimulatedHost, host: SimulatedHost) -> None:
        assert dom0.is_dom0
        assert not dom0.has_iommu
        assert not host.is_dom0
        assert not host.sysfs.exists(PCIBACK)
        assert host.modules.exists("xen-pciback")

    def test_a_leftover_slot_seizes_the_next_card(self, dom0: SimulatedHost) -> None:
        dom0.sysfs.write(f"{PCIBACK}/new_slot", NIC)
        assert dom0.snapshot()["pciback"] == {"slots": [NIC]}
        dom0.unplug(NIC)
        dom0.add_pci(NIC, kernel_driver="e1000e")
        assert dom0.snapshot()[NIC]["kernel_driver"] == "pciback"
        dom0.sysfs.write(f"{PCIBACK}/unbind", NIC)
        dom0.sysfs.write("bus/pci/drivers_probe", NIC)
        assert dom0.snapshot()[NIC]["kernel_driver"] == "pciback"

    @pytest.mark.parametrize(
        ("text", "slots"),
        [
            ("0:1:0.0", [NIC]),
            ("01:00.0\n", [NIC]),
            ("  0000:01:00.0", [NIC]),
            ("01:00.*", [f"0000:01:00.{function}" for function in range(8)]),
            ("0000:01:20.0", None),
            ("0000:01:00.8", None),
            ("0000:01:00.0 x", None),
            ("0000:01:00", None),
        ],
    )
    def test_forms_of_slots(self, dom0: SimulatedHost, text: str, slots: list[str] | None) -> None:
        if slots is None:
            with pytest.raises(KernelError) as caught:
                dom0.sysfs.write(f"{PCIBACK}/new_slot", text)
            assert caught.value.errno == errno.EINVAL
        else:
            dom0.sysfs.write(f"{PCIBACK}/new_slot", text)
            assert (dom0.sysfs.read(f"{PCIBACK}/slots") or "").split() == slots

    def test_xenstore(self, dom0: SimulatedHost) -> None:
        store, path = dom0.xenstore, "/libxl/pci/0000-01-00-0/driver_path"
        before = dom0.snapshot()
        store.write(path, "/sys/bus/pci/drivers/e1000e")
        assert SimulatedHost.open(dom0.root).xenstore.read(path) == "/sys/bus/pci/drivers/e1000e"
        assert store.read("/libxl/pci") == ""
        assert store.children("/libxl") == ["pci"]
        assert store.children("/") == ["libxl"]
        assert dom0.snapshot()["xenstore"] == {path: "/sys/bus/pci/drivers/e1000e"}
        store.remove("/libxl/pci/0000-01-00-0")
        store.remove("/libxl/pci/0000-01-00-0")
        assert store.read(path) is None
        assert store.children("/libxl/pci") == []
        assert dom0.snapshot() == before

    def test_xenstore_refuses_what_is_no_path(self, dom0: SimulatedHost) -> None:
        for path in ("", "/a//b", "/a/", "/libxl/pci/0000:01:00.0", "/a b"):
            with pytest.raises(StateError):
                dom0.xenstore.write(path, "x")
        with pytest.raises(StateError):
            dom0.xenstore.remove("/")

    def test_no_xenstore_without_xen(self, host: SimulatedHost) -> None:
        with pytest.raises(StateError, match="dom0"):
            host.xenstore.read("/libxl")


class TestUdev:
    def test_events(self, host: SimulatedHost) -> None:
        host.add_pci(NIC, kernel_driver="e1000e", net="eth0")
        pci, everything = host.udev.events("pci"), host.udev.events()
        host.sysfs.write(f"bus/pci/devices/{NIC}/driver/unbind", NIC)
        host.unplug(NIC)
        assert [tuple(next(pci)) for _ in range(2)] == [
            ("unbind", "pci", NIC),
            ("remove", "pci", NIC),
        ]
        assert tuple(next(everything)) == ("remove", "net", "eth0")

    def test_half_an_event_is_waited_for(self, host: SimulatedHost) -> None:
        events = host.udev.events()
        with open(f"{host.root}/.kernel/events", "a", buffering=1) as file:
            file.write('["unbind", "pci", ')
            file.flush()
            rest = threading.Timer(0.05, file.write, ('"0000:01:00.0"]\n',))
            rest.start()
            assert tuple(next(events)) == ("unbind", "pci", NIC)
            rest.join()

    def test_properties_and_nodes(self, host: SimulatedHost) -> None:
        host.add_usb("1-1", serial="A1")
        found = host.udev.properties(host.sysfs.path("bus/usb/devices/1-1"))
        assert found["ID_SERIAL_SHORT"] == "A1"
        assert found["DEVNAME"] == "bus/usb/001/002"
        assert host.udev.properties(host.sysfs.path("nonsense")) == {}
        path = host.path("dev/bus/usb/001/003")
        assert not host.udev.wait_for(path, 0.01)
        later = threading.Timer(0.05, host.add_usb, ("1-2",))
        later.start()
        assert host.udev.wait_for(path, 60)
        later.join()


def test_a_machine_that_an_older_hostdev_made_is_to_be_made_again(host: SimulatedHost) -> None:
    memory = Path(host.root, ".kernel", "machine")
    memory.write_text('{"dom0": false, "iommu": true}')
    with pytest.raises(InputError, match="names no kernel release; make the simulated host anew"):
        print(SimulatedHost(host.root).kernel_release)
