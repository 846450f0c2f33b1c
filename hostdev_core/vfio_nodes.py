"""Where VFIO's nodes of an IOMMU group are, and who else is in one."""

from typing import NamedTuple

from hostdev_core.sysfs import Sysfs

GROUPS = "kernel/iommu_groups"
CONTAINER = "dev/vfio/vfio"


class Member(NamedTuple):
    """A member of an IOMMU group that is no PCI device, and the kernel driver it is on."""

    name: str
    bus: str
    kernel_driver: str


def is_isolated(sysfs: Sysfs, group: int | str) -> bool:
    """Whether an IOMMU is behind the group; VFIO's no-IOMMU mode makes groups of its own name.

    KernelError where that cannot be read: who lends by it lends nothing then.
    """
    return sysfs.read(f"{GROUPS}/{group}/name") != "vfio-noiommu"


def group_node(sysfs: Sysfs, group: int | str) -> str:
    """The group's node below the root: "dev/vfio/8", or "dev/vfio/noiommu-0"."""
    return f"dev/vfio/{group}" if is_isolated(sysfs, group) else f"dev/vfio/noiommu-{group}"
