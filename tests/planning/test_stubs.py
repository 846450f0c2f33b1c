"""Which stub a device gets: one that its guest can use, or the driver that gives it to guests."""

from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    LocalHostdevDriver,
    NotAssignableError,
    PCIHostdev,
    ReattachError,
    open_connection,
)
from hostdev_core.testing import SimulatedHost
from hostdev_qemu import QemuDriver
from tests.sample import NIC, driver_of, registered

GPU, VF = "0000:3d:00.0", "0000:3d:00.4"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_driver("nvidia", gives_vfio=True)
    gpu = {"id": "10de:2335", "class_": "030200", "kernel_driver": "nvidia"}
    host.add_pci(GPU, iommu_group=20, sriov_totalvfs=4, **gpu)  # type: ignore[arg-type]
    host.add_pci(VF, iommu_group=21, physfn=GPU, power_control="auto", **gpu)  # type: ignore[arg-type]
    return host


def bind(host: SimulatedHost, address: str, kernel_driver: str) -> None:
    host.modules.load(kernel_driver)
    host.sysfs.write(f"bus/pci/devices/{address}/driver_override", kernel_driver)
    host.sysfs.write(f"bus/pci/devices/{address}/driver/unbind", address)
    host.sysfs.write(f"bus/pci/drivers/{kernel_driver}/bind", address)


def test_pci_stub_is_not_for_a_guest_of_qemu(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    with pytest.raises(NotAssignableError, match="wanted vfio-pci") as caught:
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=NIC, stub="pci-stub")]))
    assert caught.value.rule == "stub"
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_device_on_pci_stub_is_moved_for_a_guest_and_given_back_there(
    host: SimulatedHost, conn: Connection
) -> None:
    bind(host, NIC, "pci-stub")
    before = host.snapshot()
    (card,) = conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert driver_of(host, NIC) == "vfio-pci"
    assert card.node == host.path("dev/vfio/1")
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_device_on_pci_stub_may_be_detached_there(host: SimulatedHost, conn: Connection) -> None:
    bind(host, NIC, "pci-stub")
    before = host.snapshot()
    conn.detach_device(NIC)
    assert host.snapshot() == before
    with pytest.raises(NotAssignableError, match=f"hostdev device reattach {NIC}") as caught:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert caught.value.rule == "stub"
    conn.reattach_device(NIC)
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_an_unmanaged_one_on_pci_stub_is_told_so(host: SimulatedHost, conn: Connection) -> None:
    bind(host, NIC, "pci-stub")
    with pytest.raises(NotAssignableError, match="bind it to vfio-pci") as caught:
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=NIC, managed=False)]))
    assert caught.value.rule == "stub"


def test_a_sibling_may_stay_on_pci_stub(host: SimulatedHost, conn: Connection) -> None:
    host.add_pci("0000:01:00.1", kernel_driver="e1000e", iommu_group=1)
    bind(host, "0000:01:00.1", "pci-stub")
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert driver_of(host, "0000:01:00.1") == "pci-stub"


def test_a_backend_that_says_nothing_hands_out_each_stub(host: SimulatedHost) -> None:
    class Mine(LocalHostdevDriver):
        name = "mine"
        uri_schemes = ("mine",)
        stubs = ("vfio-pci", "pci-stub")

    with open_connection("mine:///x", host=host, registry=registered(Mine())) as conn:
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=NIC, stub="pci-stub")]))
        assert driver_of(host, NIC) == "pci-stub"


def test_a_backend_may_detach_to_a_stub_of_its_own(host: SimulatedHost) -> None:
    class Careful(QemuDriver):
        name = "careful"
        uri_schemes = ("careful",)
        stubs = ("pci-stub", "vfio-pci")

        def choose_stub(self, host: object, device: object) -> str:
            return "pci-stub"

    before = host.snapshot()
    with open_connection("careful:///system", host=host, registry=registered(Careful())) as conn:
        conn.detach_device(NIC)
        assert driver_of(host, NIC) == "pci-stub"
        conn.reattach_device(NIC)
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert driver_of(host, NIC) == "vfio-pci"
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before


def test_a_vgpu_is_lent_as_it_is(host: SimulatedHost, conn: Connection) -> None:
    before, writes = host.snapshot(), host.writes()
    plan = conn.plan(Domain("vm1", [VF]))
    assert plan.devices[0].steps == ()
    (vgpu,) = conn.prepare_hostdevs(Domain("vm1", [VF]))
    assert host.writes() == writes
    assert vgpu.node == host.path("dev/vfio/21")
    assert vgpu.arguments == ("-device", f"vfio-pci,host={VF}")
    with host.hold(VF), pytest.raises(ReattachError, match=VF):
        conn.reattach_hostdevs("vm1")
    assert conn.reattach_hostdevs("vm1") == (VF,)
    assert host.writes() == writes
    assert host.snapshot() == before


@pytest.mark.parametrize("managed", [True, False])
def test_a_vgpu_is_never_moved(host: SimulatedHost, conn: Connection, managed: bool) -> None:
    writes = host.writes()
    conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=VF, managed=managed)]))
    conn.reattach_hostdevs("vm1")
    conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=VF, stub="nvidia")]))
    conn.reattach_hostdevs("vm1")
    for stub in ("vfio-pci", "pci-stub"):
        with pytest.raises(NotAssignableError, match="by its own driver, nvidia") as caught:
            conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=VF, stub=stub)]))
        assert caught.value.rule == "stub"
    assert host.writes() == writes


def test_detaching_and_resetting_a_vgpu_leaves_it_alone(
    host: SimulatedHost, conn: Connection
) -> None:
    before, writes = host.snapshot(), host.writes()
    conn.detach_device(VF)
    with pytest.raises(NotAssignableError, match="nvidia, which resets it") as caught:
        conn.reset_device(VF)
    assert "detach" not in str(caught.value)
    conn.prepare_hostdevs(Domain("vm1", [VF]))
    conn.reattach_hostdevs("vm1")
    conn.reattach_device(VF)
    assert host.writes() == writes
    assert host.snapshot() == before


def test_a_function_without_a_vgpu_is_one_like_others(
    host: SimulatedHost, conn: Connection
) -> None:
    """Before a vGPU is made, the host's driver gives nothing."""
    gpu = {"id": "10de:2335", "class_": "030200", "kernel_driver": "nvidia_plain"}
    other = "0000:3d:00.5"
    host.add_pci(other, iommu_group=22, physfn=GPU, **gpu)  # type: ignore[arg-type]
    conn.prepare_hostdevs(Domain("vm1", [other]))
    assert driver_of(host, other) == "vfio-pci"
