"""What comes between the look and the claim is seen: another card, a guest, a driver beside the device."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from hostdev_core import (
    DeviceInUseError,
    Domain,
    GroupNotViableError,
    HostdevError,
    NotAssignableError,
)
from hostdev_core.model.record import Phase
from hostdev_core.simulated import SimulatedHost
from tests.sample import GPU, NIC, XEN, connect

PF, VF = "0000:05:00.0", "0000:05:10.0"


def before_the_claim(host: SimulatedHost, act: Callable[[], object]) -> None:
    """Let it happen once, after the look and the decision."""
    waiting = [act]

    def watch(moment: str) -> None:
        if moment == "before transaction" and waiting:
            waiting.pop()()

    host.watch(watch)


def test_a_device_that_a_guest_of_xen_got(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "host", dom0=True)
    host.add_pci(NIC, kernel_driver="e1000e")
    other = SimulatedHost.open(host.root)

    def attach() -> None:
        other.xenstore.write("/local/domain/7/name", "guest")
        other.xenstore.write("/local/domain/0/backend/pci/7/0/dev-0", NIC)

    with connect(host, uri=XEN) as conn:
        conn.detach_device(NIC)
        before = host.snapshot()
        before_the_claim(host, attach)
        with pytest.raises(DeviceInUseError, match="guest"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert host.snapshot() == before
        assert [record.phase for record in host.ledger.records()] == [Phase.INACTIVE]


def test_a_physical_function_that_went_to_vfio(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(PF, id="8086:1521", kernel_driver="igb", iommu_group=5, sriov_totalvfs=4)
    host.add_pci(VF, id="8086:1520", kernel_driver="igbvf", iommu_group=6, physfn=PF)
    host.modules.load("vfio_pci")
    link = f"{os.path.realpath(f'{host.sysfs.root}/bus/pci/devices/{PF}')}/driver"

    def go() -> None:
        target = os.readlink(link).replace("igb", "vfio-pci")
        os.unlink(link)
        os.symlink(target, link)

    with connect(host) as conn:
        before_the_claim(host, go)
        with pytest.raises(NotAssignableError, match="physical function"):
            conn.prepare_hostdevs(Domain("vm1", [VF]))
    assert host.sysfs.link(f"bus/pci/devices/{VF}/driver") == "igbvf"
    assert host.ledger.records() == []


def test_a_member_of_the_group_on_another_bus(host: SimulatedHost) -> None:
    place = Path(host.sysfs.root) / "devices/platform/dma.1"
    place.mkdir(parents=True)
    (Path(host.sysfs.root) / "kernel/iommu_groups/1/devices/dma.1").symlink_to(place)
    before = host.snapshot()
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))  # it is on no driver
        conn.reattach_hostdevs("vm1")
        before_the_claim(
            host, lambda: (place / "driver").symlink_to("../../bus/platform/drivers/dmadrv")
        )
        with pytest.raises(GroupNotViableError, match=r"dma\.1"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert (host.snapshot(), host.ledger.records()) == (before, [])


class AtLook:
    """Does something at the nth look of a call, before it is made."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.left, self._act = number, act

    def __call__(self, what: str) -> None:
        del what
        self.left -= 1
        if self.left == 0:
            self._act()


def is_told_truly(host: SimulatedHost) -> bool:
    """Whether each record is of the card that is at its address: its ids, and its group."""
    return all(
        record.modalias == host.sysfs.read(f"bus/pci/devices/{record.address}/modalias")
        and str(record.group) == host.sysfs.link(f"bus/pci/devices/{record.address}/iommu_group")
        for record in host.ledger.records()
    )


def test_another_card_at_any_look_until_the_claim_is_confirmed(tmp_path: Path) -> None:
    """Of another group, whose rules it was never asked for: it is not lent by the first one's record."""
    for number in count(1):
        host = SimulatedHost.create(tmp_path / f"{number}")
        host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
        host.add_pci(GPU, id="10de:2204", class_="030000", kernel_driver="nouveau", iommu_group=3)
        other, moments, early = SimulatedHost.open(host.root), list[str](), list[bool]()

        def swap(
            other: SimulatedHost = other, moments: list[str] = moments, early: list[bool] = early
        ) -> None:
            early.append(moments.count("after transaction") < 2)  # the claim, and its confirmation
            other.unplug(NIC)
            other.add_pci(NIC, id="8086:1521", kernel_driver="e1000e", iommu_group=3)

        with connect(host) as conn:
            host.watch_reads(AtLook(number, swap))
            host.watch(moments.append)
            try:
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
            except HostdevError:
                assert host.ledger.records() == []
            host.watch_reads(None)
            host.watch(None)
        if early != [True]:
            break
        assert is_told_truly(host)
    assert number > 50
