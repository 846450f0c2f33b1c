"""Machines whose IOMMU VFIO refuses, or that have none: said before anything is lent."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostdev_core import NotAssignableError, PCIHostdev

from . import inside, machines
from .guest import Guest
from .nested_qemu import NestedQemu
from .world import call, kernel_drivers, settled, world

NIC, NIC2 = machines.NIC, machines.NIC2


@contextmanager
def machine(folder: Path, iommu: str) -> Generator[Guest]:
    with Guest(folder, machines.small(), iommu=iommu, memory=1536) as guest:
        guest.check("modprobe -a e1000e usbcore; udevadm settle")
        before = world(guest)
        yield guest
        assert settled(guest, before) == before


def test_without_interrupt_remapping_vfio_refuses(tmp_path: Path) -> None:
    with machine(tmp_path, "intel-iommu,intremap=off,caching-mode=on") as guest:
        with pytest.raises(NotAssignableError) as caught:
            call(guest, inside.prepare, "vm1", [NIC, NIC2])
        assert (caught.value.rule, caught.value.errno) == ("vfio-refuses", errno.EPERM)
        assert "VFIO_SET_IOMMU" in str(caught.value)
        assert "No interrupt remapping support" in str(caught.value)
        assert kernel_drivers(guest, NIC, NIC2) == ["e1000e", "e1000e"]
        guest.check("echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
        (nic,) = call(guest, inside.prepare, "vm1", [NIC])
        with NestedQemu(guest, nic.arguments) as qemu:
            assert len(qemu.pci_devices()) > 1
        call(guest, inside.reattach, "vm1")


def test_without_an_iommu_nothing_is_lent(tmp_path: Path) -> None:
    """This kernel is built without VFIO's no-IOMMU mode: its module has no such parameter."""
    allowed = PCIHostdev(address=NIC, allow={"no-isolation"})
    with machine(tmp_path, "") as guest:
        guest.check("modprobe vfio enable_unsafe_noiommu_mode=1")
        with pytest.raises(NotAssignableError) as refused:
            call(guest, inside.prepare, "vm1", [allowed])
        assert refused.value.rule == "no-iommu"
        assert kernel_drivers(guest, NIC) == ["e1000e"]
