"""Binding and unbinding on a simulated host, seen through its public doors."""

import errno
import os
import threading
from pathlib import Path

import pytest

from hostdev_core.errors import InputError, KernelError
from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC

pytestmark = pytest.mark.quick_cases

OTHER = "0000:01:00.1"


def device(address: str, name: str = "") -> str:
    return f"bus/pci/devices/{address}/{name}".rstrip("/")


def errno_of(host: SimulatedHost, path: str, value: str) -> int | None:
    try:
        host.sysfs.write(path, value)
    except KernelError as error:
        return error.errno
    return None


def lend(host: SimulatedHost, address: str, stub: str = "vfio-pci") -> None:
    host.modules.load(stub)
    host.sysfs.write(device(address, "driver_override"), stub)
    if host.sysfs.link(device(address, "driver")):
        host.sysfs.write(device(address, "driver/unbind"), address)
    host.sysfs.write(f"bus/pci/drivers/{stub}/bind", address)


def driver_of(host: SimulatedHost, address: str) -> str | None:
    return host.sysfs.link(device(address, "driver"))


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=3, net="eth0")
    return host


class TestPlaces:
    def test_create_wants_an_empty_or_missing_directory(self, tmp_path: Path) -> None:
        SimulatedHost.create(tmp_path / "missing")
        (tmp_path / "empty").mkdir()
        SimulatedHost.create(tmp_path / "empty")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        for name in ("full", "empty"):
            with pytest.raises(InputError, match=name):
                SimulatedHost.create(tmp_path / name)

    def test_open_wants_a_simulated_host(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=str(tmp_path)):
            SimulatedHost.open(tmp_path)

    def test_two_objects_show_one_machine(self, host: SimulatedHost) -> None:
        again = SimulatedHost.open(host.root)
        lend(again, NIC)
        assert driver_of(host, NIC) == "vfio-pci"
        assert again.snapshot() == host.snapshot()
        assert host.state_dir == f"{host.root}/run/hostdev"
        assert not Path(host.state_dir).exists()


class TestDevices:
    def test_a_device_looks_like_one(self, host: SimulatedHost) -> None:
        read = host.sysfs.read
        expected = "pci:v00008086d000010D3sv00000000sd00000000bc02sc00i00"
        assert read(device(NIC, "modalias")) == expected
        assert read(device(NIC, "vendor")) == "0x8086"
        assert read(device(NIC, "class")) == "0x020000"
        assert (read(device(NIC, "uevent")) or "").startswith("DRIVER=e1000e\nPCI_CLASS=20000\n")
        assert host.sysfs.link(device(NIC, "iommu_group")) == "3"
        assert host.sysfs.link(device(NIC, "subsystem")) == "pci"
        assert host.sysfs.names("kernel/iommu_groups/3/devices") == [NIC]
        assert host.modules.module_of("e1000e") == "e1000e"
        assert host.modules.drivers("e1000e") == ("e1000e",)

    def test_a_bridge_has_what_is_behind_it(self, host: SimulatedHost) -> None:
        host.add_pci("0000:00:1c.0", class_="060400", header_type=1, kernel_driver="pcieport")
        host.add_pci("0000:02:00.0", parent="0000:00:1c.0", kernel_driver="nvme")
        path = host.sysfs.real_path(device("0000:02:00.0"))
        assert path == "devices/pci0000:00/0000:00:1c.0/0000:02:00.0"
        assert host.sysfs.read_bytes(device("0000:00:1c.0", "config"), 64)[0x0E] == 1  # type: ignore[index]
        host.unplug("0000:00:1c.0")
        assert host.sysfs.names("bus/pci/devices") == [NIC]

    def test_a_replugged_card_is_another_one(self, host: SimulatedHost) -> None:
        inodes = {host.sysfs.inode(device(NIC))}
        for _ in range(20):
            host.unplug(PCIAddress.parse(NIC))
            assert not host.sysfs.exists(device(NIC))
            assert host.sysfs.names("bus/pci/drivers/e1000e") == _driver_files()
            host.add_pci(NIC, kernel_driver="e1000e", iommu_group=3)
            inodes.add(host.sysfs.inode(device(NIC)))
        assert len(inodes) == 21

    def test_a_place_is_taken_once(self, host: SimulatedHost) -> None:
        with pytest.raises(InputError, match=NIC):
            host.add_pci(NIC)
        with pytest.raises(InputError, match="not plugged in"):
            host.unplug("0000:09:00.0")
        with pytest.raises(InputError, match=r"0000:00:1d\.0"):
            host.add_pci("0000:02:00.0", parent="0000:00:1d.0")

    def test_groups(self, host: SimulatedHost, tmp_path: Path) -> None:
        host.add_pci(OTHER, iommu_group=3)
        host.add_pci("0000:02:00.0")
        assert host.sysfs.names("kernel/iommu_groups/3/devices") == [NIC, OTHER]
        assert host.sysfs.link(device("0000:02:00.0", "iommu_group")) == "100"
        bare = SimulatedHost.create(tmp_path / "bare", iommu=False)
        bare.add_pci(NIC, iommu_group=3, kernel_driver="e1000e")
        assert not bare.sysfs.exists(device(NIC, "iommu_group"))
        assert not bare.has_iommu
        bare.modules.load("vfio-pci")
        bare.sysfs.write(device(NIC, "driver_override"), "vfio-pci")
        bare.sysfs.write(device(NIC, "driver/unbind"), NIC)
        assert errno_of(bare, "bus/pci/drivers/vfio-pci/bind", NIC) == errno.EINVAL


def _driver_files() -> list[str]:
    return ["bind", "module", "new_id", "remove_id", "unbind"]


class TestBinding:
    def test_a_round_trip_leaves_nothing_behind(self, host: SimulatedHost) -> None:
        before = host.snapshot()
        lend(host, NIC)
        assert driver_of(host, NIC) == "vfio-pci"
        assert os.path.exists(host.path("dev/vfio/3"))
        assert not host.sysfs.exists("class/net/eth0")
        assert not host.sysfs.exists(f"bus/pci/drivers/e1000e/{NIC}")
        assert host.sysfs.exists(f"bus/pci/drivers/vfio-pci/{NIC}")
        lend(host, NIC, "e1000e")
        host.sysfs.write(device(NIC, "driver_override"), "\n")
        assert host.snapshot() == before
        assert not os.path.exists(host.path("dev/vfio/3"))
        assert host.sysfs.exists("class/net/eth0/operstate")
        assert host.sysfs.exists(device(NIC, "net/eth0"))

    def test_the_group_node_goes_with_the_last_member(self, host: SimulatedHost) -> None:
        host.add_pci(OTHER, iommu_group=3, kernel_driver="snd_hda_intel")
        lend(host, NIC)
        lend(host, OTHER)
        assert len(host.sysfs.names("class/vfio-dev")) == 2
        host.sysfs.write(device(NIC, "driver/unbind"), NIC)
        assert os.path.exists(host.path("dev/vfio/3"))
        host.unplug(OTHER)
        assert not os.path.exists(host.path("dev/vfio/3"))
        assert host.sysfs.names("class/vfio-dev") == []

    @pytest.mark.parametrize(("number", "seen"), [(errno.EIO, errno.EIO), (517, errno.EAGAIN)])
    def test_a_probe_fails_with_its_own_errno(
        self, host: SimulatedHost, number: int, seen: int
    ) -> None:
        host.add_driver("e1000e", module="e1000e", ids=["8086:10d3"], probe_errno=number)
        host.sysfs.write(device(NIC, "driver/unbind"), NIC)
        assert errno_of(host, "bus/pci/drivers/e1000e/bind", NIC) == seen
        assert errno_of(host, "bus/pci/drivers_probe", NIC) is None
        assert driver_of(host, NIC) is None
        assert not host.sysfs.exists(f"bus/pci/drivers/e1000e/{NIC}")

    def test_vfio_refuses_a_bridge(self, host: SimulatedHost) -> None:
        host.add_pci("0000:00:1c.0", class_="060400", header_type=1)
        host.modules.load("vfio-pci")
        host.sysfs.write(device("0000:00:1c.0", "driver_override"), "vfio-pci")
        assert errno_of(host, "bus/pci/drivers/vfio-pci/bind", "0000:00:1c.0") == errno.EINVAL

    def test_remove_takes_the_device_away(self, host: SimulatedHost) -> None:
        host.sysfs.write(device(NIC, "remove"), "0")
        assert host.sysfs.exists(device(NIC))
        host.sysfs.write(device(NIC, "remove"), "1")
        assert host.snapshot().keys() == {"pciback", "xenstore", "usb"}

    def test_without_autoprobe_a_new_driver_takes_nothing(self, host: SimulatedHost) -> None:
        host.add_pci("0000:02:00.0", id="15b3:1019")
        host.sysfs.write("bus/pci/drivers_autoprobe", "0")
        host.add_driver("mlx5_core", ids=["15b3:1019"])
        assert driver_of(host, "0000:02:00.0") is None
        host.sysfs.write("bus/pci/drivers_autoprobe", "1")
        host.add_driver("mlx6_core", ids=["15b3:1019"])
        assert driver_of(host, "0000:02:00.0") == "mlx6_core"


class TestModules:
    def test_a_stub_comes_with_its_module(self, host: SimulatedHost) -> None:
        assert host.modules.exists("vfio-pci")
        assert not host.modules.is_loaded("vfio-pci")
        assert not host.sysfs.exists("bus/pci/drivers/vfio-pci")
        host.modules.load("vfio-pci")
        host.modules.load("vfio-pci")
        assert host.modules.is_loaded("vfio_pci")
        assert host.modules.drivers("vfio-pci") == ("vfio-pci",)

    def test_an_unknown_module(self, host: SimulatedHost) -> None:
        assert not host.modules.exists("nonsense")
        with pytest.raises(KernelError, match="Module nonsense not found"):
            host.modules.load("nonsense")

    def test_ids_in_the_options_seize_what_has_no_driver(self, host: SimulatedHost) -> None:
        host.add_pci("0000:02:00.0", id="10de:1db6")
        Path(host.path("etc/modprobe.d/vfio.conf")).write_text("options vfio-pci ids=10de:1db6\n")
        host.modules.load("vfio-pci")
        assert driver_of(host, "0000:02:00.0") == "vfio-pci"
        assert driver_of(host, NIC) == "e1000e"

    def test_variants_and_blacklists(self, host: SimulatedHost) -> None:
        host.add_driver("mlx5-vfio-pci", module="mlx5-vfio-pci", loaded=False,
                        variant_for="15b3:101e", blacklisted=True)  # fmt: skip
        host.add_pci("0000:02:00.0", id="15b3:101e", iommu_group=4)
        modalias = host.sysfs.read(device("0000:02:00.0", "modalias")) or ""
        assert host.modules.vfio_variant(modalias) == "mlx5_vfio_pci"
        assert (
            host.modules.vfio_variant(host.sysfs.read(device(NIC, "modalias")) or "") == "vfio_pci"
        )
        assert "blacklist-mlx5_vfio_pci" in (host.modules.blacklisted("mlx5-vfio-pci") or "")
        lend(host, "0000:02:00.0", "mlx5-vfio-pci")
        assert os.path.exists(host.path("dev/vfio/4"))

    def test_an_unloaded_module_lets_its_devices_go(self, host: SimulatedHost) -> None:
        before = host.snapshot()
        host.unload_module("e1000e")
        assert driver_of(host, NIC) is None
        assert not host.modules.is_loaded("e1000e")
        host.modules.load("e1000e")
        assert host.snapshot() == before


class TestHolding:
    def test_a_group_opens_once(self, host: SimulatedHost) -> None:
        lend(host, NIC)
        fd = host.open_node("/dev/vfio/3")
        with pytest.raises(OSError, match="busy") as caught:
            host.open_node("dev/vfio/3")
        assert caught.value.errno == errno.EBUSY
        with pytest.raises(OSError, match="busy"), host.hold(NIC):
            pass
        os.close(fd)
        os.close(host.open_node("dev/vfio/3"))
        with pytest.raises(FileNotFoundError):
            host.open_node("dev/vfio/4")

    def test_a_guard_is_in_nobodys_way(self, host: SimulatedHost) -> None:
        lend(host, NIC)
        fd = host.open_node("dev/vfio/3")
        lend(host, NIC, "e1000e")
        assert driver_of(host, NIC) == "e1000e"
        os.close(fd)

    def test_no_host_driver_in_a_held_group(self, host: SimulatedHost) -> None:
        host.add_pci(OTHER, iommu_group=3)
        host.add_driver("snd_hda_intel", ids=["8086:10d3"])
        host.sysfs.write(device(OTHER, "driver/unbind"), OTHER)
        lend(host, NIC)
        with host.hold(NIC):
            assert errno_of(host, "bus/pci/drivers/snd_hda_intel/bind", OTHER) == errno.EBUSY
            assert errno_of(host, "bus/pci/drivers_probe", OTHER) == errno.EINVAL
            lend(host, OTHER, "pci-stub")
        lend(host, OTHER, "snd_hda_intel")
        with pytest.raises(PermissionError), host.hold(NIC):
            pass

    def test_unbinding_a_held_device_waits(self, host: SimulatedHost) -> None:
        lend(host, NIC)
        with host.hold(NIC):
            writer = _start(host, device(NIC, "driver/unbind"), NIC)
            while host.sysfs.exists(device(NIC, "driver")):
                pass
            writer.join(0.1)
            assert writer.is_alive()
            assert os.path.exists(host.path("dev/vfio/3"))
        writer.join(60)
        assert not os.path.exists(host.path("dev/vfio/3"))
        lend(host, NIC)
        with host.hold(NIC, device=False):
            host.sysfs.write(device(NIC, "driver/unbind"), NIC)


def _start(host: SimulatedHost, path: str, value: str) -> threading.Thread:
    thread = threading.Thread(target=errno_of, args=(host, path, value), daemon=True)
    thread.start()
    return thread
