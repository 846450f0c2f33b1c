"""SR-IOV on a simulated host."""

from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost

PF = "0000:05:00.0"
FIRST = "0000:05:00.1"


def device(address: str, name: str) -> str:
    return f"bus/pci/devices/{address}/{name}"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(PF, kernel_driver="igb", id="8086:1521", sriov_totalvfs=8)
    return host


def test_they_come_and_go(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.sysfs.write(device(PF, "sriov_numvfs"), "8")
    assert host.sysfs.link(device(PF, "virtfn7")) == "0000:05:01.0"
    assert host.sysfs.link(device(FIRST, "physfn")) == PF
    assert host.sysfs.link(device("0000:05:01.0", "driver")) == "igb"
    host.modules.load("vfio-pci")
    host.sysfs.write(device(FIRST, "driver_override"), "vfio-pci")
    host.sysfs.write(device(FIRST, "driver/unbind"), FIRST)
    host.sysfs.write("bus/pci/drivers/vfio-pci/bind", FIRST)
    assert len(host.sysfs.names("class/vfio-dev")) == 1
    host.sysfs.write(device(PF, "sriov_numvfs"), "0")
    assert host.snapshot() == before
    assert host.sysfs.names("class/vfio-dev") == []


def test_without_autoprobe_they_have_no_driver(host: SimulatedHost) -> None:
    host.sysfs.write(device(PF, "sriov_drivers_autoprobe"), "0\n")
    host.sysfs.write(device(PF, "sriov_numvfs"), "1")
    assert host.sysfs.exists(device(FIRST, "vendor"))
    assert host.sysfs.link(device(FIRST, "driver")) is None


def test_they_go_with_the_card(host: SimulatedHost) -> None:
    host.sysfs.write(device(PF, "sriov_numvfs"), "2")
    host.unplug(PF)
    assert host.sysfs.names("bus/pci/devices") == []
    assert host.sysfs.names("kernel/iommu_groups") == []
