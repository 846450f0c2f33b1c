"""VFIO's side of an IOMMU group: whether it isolates, and what VFIO is known to refuse."""

from collections.abc import Iterator

from hostdev_core.errors import InvalidAddressError, NotAssignableError
from hostdev_core.hookspecs import Refusal
from hostdev_core.host import Host
from hostdev_core.kernel.vfio import GROUPS, Member, is_isolated
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDevice

_NOIOMMU = "enable_unsafe_noiommu_mode"


def allows_noiommu(host: Host) -> bool:
    """Whether VFIO binds devices without an IOMMU, or would once its module is loaded.

    KernelError where that cannot be read.
    """
    value = host.sysfs.read(f"module/vfio/parameters/{_NOIOMMU}")
    if value is None:
        words = [w for w in host.modules.options("vfio").split() if w.startswith(f"{_NOIOMMU}=")]
        value = words[-1].partition("=")[2] if words else ""
    return value[:1] in {"Y", "y", "1"}


def other_members(host: Host, group: int | None) -> list[Member]:
    """The members of an IOMMU group outside the PCI bus that are on a driver VFIO does not bear."""
    folder = f"{GROUPS}/{group}/devices"
    found: list[Member] = []
    for name in host.sysfs.names(folder) if group is not None else ():
        try:
            PCIAddress.parse(name)
        except InvalidAddressError:
            driver = host.sysfs.link(f"{folder}/{name}/driver")
            if driver is not None and not driver.startswith("vfio"):
                bus = host.sysfs.link(f"{folder}/{name}/subsystem") or "unknown"
                found.append(Member(name, bus, driver))
    return found


def find_risks(host: Host, device: PCIDevice, *, for_guest: bool) -> Iterator[Refusal]:
    """What VFIO makes of a device's group by what sysfs says of it; KernelError where it does not.

    NotAssignableError for a device without a group, where VFIO takes no such one.
    """
    group = device.iommu_group
    if group is None and not allows_noiommu(host):
        raise NotAssignableError(
            f"{device.name} has no IOMMU group: the IOMMU is off or absent; turn on VT-d or AMD-Vi in"
            " the firmware, and boot with intel_iommu=on where the kernel leaves it off",
            device=device.name,
            rule="no-iommu",
        )
    if group is None or not is_isolated(host.sysfs, group):
        yield Refusal(
            "no-isolation",
            device.name,
            "VFIO's no-IOMMU mode isolates nothing: the device can write to all of the host's memory."
            " Programs like DPDK take it so, QEMU does not; turn the IOMMU on",
            (
                f"IOMMU group {group} is named vfio-noiommu"
                if group is not None
                else f"{_NOIOMMU}=Y",
            ),
        )
    elif for_guest and (regions := _direct_regions(host, group)):
        yield Refusal(
            "reserved-regions",
            device.name,
            "the firmware wants memory mapped for the device itself, and the kernel does not let VFIO"
            " have it; see the firmware's settings for that device",
            tuple(f"IOMMU group {group}: {region}" for region in regions),
        )


def _direct_regions(host: Host, group: int) -> list[str]:
    """Format: Documentation/ABI/testing/sysfs-kernel-iommu_groups; "direct-relaxable" does not matter."""
    lines = (host.sysfs.read(f"{GROUPS}/{group}/reserved_regions") or "").splitlines()
    return [line for line in lines if line.split()[2:] == ["direct"]]
