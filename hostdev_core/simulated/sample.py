"""A small machine to try things on: `test:///default` and `hostdev demo` use it."""

import os

from hostdev_core.simulated.host import SimulatedHost


def make_sample(path: str | os.PathLike[str], *, dom0: bool = False) -> SimulatedHost:
    """Make a machine with two network cards, a GPU with its audio function in one IOMMU group, an
    NVMe disk, a card with virtual functions, and three USB devices, two of them equal.

    `dom0`: Xen's control domain, where there are no IOMMU groups.
    """
    host = SimulatedHost.create(path, dom0=dom0)
    host.add_pci("0000:01:00.0", kernel_driver="e1000e", iommu_group=1, net="eth0")
    host.add_pci("0000:02:00.0", kernel_driver="e1000e", iommu_group=2, net="eth1")
    host.add_pci(
        "0000:03:00.0", id="10de:2204", class_="030000", kernel_driver="nouveau", iommu_group=3
    )
    host.add_pci(
        "0000:03:00.1",
        id="10de:1aef",
        class_="040300",
        kernel_driver="snd_hda_intel",
        iommu_group=3,
    )
    host.add_pci(
        "0000:04:00.0", id="144d:a808", class_="010802", kernel_driver="nvme", iommu_group=4
    )
    host.add_pci(
        "0000:05:00.0", id="8086:1521", kernel_driver="igb", iommu_group=5, sriov_totalvfs=4
    )
    host.add_usb("1-1", id="046d:c077", product="USB Optical Mouse", manufacturer="Logitech")
    host.add_usb("1-2", id="046d:c077", product="USB Optical Mouse", manufacturer="Logitech")
    host.add_usb(
        "1-3",
        id="0951:1666",
        product="DataTraveler 3.0",
        serial="60A44C413FAE",
        kernel_driver="usb-storage",
    )
    return host
