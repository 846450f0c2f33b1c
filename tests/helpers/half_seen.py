"""A machine of which some looks fail, and its records in words."""

import errno
from pathlib import Path

from hostdev_core.simulated import SimulatedHost
from tests.sample import GPU, NIC, SOUND

FAILURES = (errno.EACCES, errno.EIO, errno.ENOMEM, errno.EMFILE)
PF, VF, STICK = "0000:05:00.0", "0000:05:00.1", "1-1"


def in_words(host: SimulatedHost) -> list[tuple[str, str, bool]]:
    return [(r.address, str(r.phase), r.stuck is not None) for r in host.ledger.records()]


def make_machine(folder: Path) -> SimulatedHost:
    host = SimulatedHost.create(folder)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(GPU, kernel_driver="nouveau", iommu_group=3)
    host.add_pci(SOUND, kernel_driver="snd_hda_intel", iommu_group=3)
    host.add_pci(PF, kernel_driver="igb", iommu_group=5, sriov_totalvfs=2)
    host.add_pci(VF, kernel_driver="igbvf", iommu_group=6, physfn=PF)
    host.add_usb(STICK, serial="A1")
    return host
