"""Calls that cross: a hook that makes one once, a group of two, who has what."""

from collections.abc import Callable

import attrs

from hostdev_core import (
    PCIHostdev,
    hookimpl,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import GPU, SOUND


@attrs.define(eq=False)
class Once:
    """Does something in the next before_prepare."""

    work: Callable[[], object] | None = None

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            work()


def add_group(host: SimulatedHost) -> None:
    host.add_pci(GPU, kernel_driver="nouveau", iommu_group=3)
    host.add_pci(SOUND, kernel_driver="snd_hda_intel", iommu_group=3)


def lent(host: SimulatedHost) -> dict[str, str]:
    records = (record for record in host.ledger.records() if record.is_lent)
    return {record.address: record.owner.domain for record in records if record.owner}


def pci(address: str) -> PCIHostdev:
    return PCIHostdev(address=address)  # type: ignore[arg-type]


def rebind(host: SimulatedHost, address: str, driver: str | None) -> None:
    """Somebody else moves a device from vfio-pci."""
    host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", address)
    if driver is not None:
        host.sysfs.write(f"bus/pci/devices/{address}/driver_override", "\n")
        host.sysfs.write(f"bus/pci/drivers/{driver}/bind", address)
