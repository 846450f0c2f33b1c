"""VFIO devices by nodes of their own (IOMMUFD) and without an IOMMU: who has one is seen."""

from __future__ import annotations

import pytest

from hostdev_core import DeviceInUseError, PCIHostdev, ReattachError

from . import inside, machines
from .guest import Guest
from .nested_qemu import NestedQemu
from .test_others import on_the_stub
from .test_users import having_open
from .test_vfio import seen_by
from .world import DEVICES, call, kernel_drivers, world

NIC = machines.NIC
BY_ITS_NODE = ["-object", "iommufd,id=fd", "-device", f"vfio-pci,host={NIC},iommufd=fd"]
LACKS = dict.fromkeys(
    ("debian12", "backports"),
    "Debian builds its kernels without it; the lab builds the modules for Debian 13's kernel alone",
)


def node(guest: Guest, address: str) -> str:
    """The node of a device that is bound to vfio-pci."""
    return f"/dev/vfio/devices/{guest.check(f'ls {DEVICES}/{address}/vfio-dev').strip()}"


@pytest.mark.case("opened by its own node (cdev)", tool="qemu", lacks=LACKS)
def test_a_qemu_opens_a_lent_device_by_its_node(cdevs: Guest) -> None:
    before = world(cdevs)
    call(cdevs, inside.prepare, "vm1", [NIC])
    cdevs.check(f"test -c {node(cdevs, NIC)}")
    with NestedQemu(cdevs, BY_ITS_NODE) as qemu:
        assert (0x8086, 0x10D3) in seen_by(qemu)
        with pytest.raises(ReattachError) as kept:
            call(cdevs, inside.reattach, "vm1")
        (error,) = kept.value.exceptions
        assert f"pid {qemu.pid}" in str(error)
        assert kernel_drivers(cdevs, NIC) == ["vfio-pci"]
        assert call(cdevs, inside.lists).active == {NIC: "vm1"}
    assert call(cdevs, inside.reattach, "vm1") == (NIC,)
    assert world(cdevs) == before


@pytest.mark.case("opened by its own node (cdev)", tool="qemu", lacks=LACKS)
def test_who_has_the_node_of_a_device_keeps_it(cdevs: Guest) -> None:
    with on_the_stub(cdevs, NIC):
        before = world(cdevs)
        with NestedQemu(cdevs, BY_ITS_NODE) as qemu:
            with pytest.raises(DeviceInUseError, match=f"pid {qemu.pid}"):
                call(cdevs, inside.prepare, "vm1", [NIC])
            assert qemu.execute("query-status")["status"] == "prelaunch"
        with (
            having_open(cdevs, node(cdevs, NIC)) as pid,
            pytest.raises(DeviceInUseError, match=f"pid {pid}"),
        ):
            call(cdevs, inside.prepare, "vm1", [NIC])
        assert world(cdevs) == before
        call(cdevs, inside.prepare, "vm1", [NIC])
        assert call(cdevs, inside.reattach, "vm1") == (NIC,)
        assert world(cdevs) == before


@pytest.mark.case("held without an IOMMU", lacks=LACKS)
def test_who_has_a_device_without_an_iommu_keeps_it(noiommu: Guest) -> None:
    allowed = PCIHostdev(address=NIC, allow={"no-isolation"})
    with on_the_stub(noiommu, NIC):
        group = noiommu.check(f"basename $(readlink {DEVICES}/{NIC}/iommu_group)").strip()
        before = world(noiommu)
        with (
            having_open(noiommu, f"/dev/vfio/noiommu-{group}") as pid,
            pytest.raises(DeviceInUseError, match=f"pid {pid}"),
        ):
            call(noiommu, inside.prepare, "vm1", [allowed])
        assert world(noiommu) == before
    before = world(noiommu)
    (assignment,) = call(noiommu, inside.prepare, "vm1", [allowed])
    noiommu.check(f"test -c {assignment.node}")
    assert call(noiommu, inside.reattach, "vm1") == (NIC,)
    assert world(noiommu) == before
