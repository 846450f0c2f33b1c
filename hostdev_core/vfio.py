"""VFIO's side of an IOMMU group: its node, whether it isolates, and what VFIO is known to refuse."""

import errno
import os
from collections.abc import Collection, Iterator
from functools import partial

from hostdev_core.address import PCIAddress
from hostdev_core.errors import InvalidAddressError, NotAssignableError
from hostdev_core.executor import Lane
from hostdev_core.holding import cdev_nodes
from hostdev_core.hookspecs import Refusal
from hostdev_core.host import Host
from hostdev_core.nodes import await_node
from hostdev_core.pci import PCIDevice, is_vfio_driver
from hostdev_core.record import Record
from hostdev_core.sysfs import PCI_DEVICES
from hostdev_core.vfio_nodes import CONTAINER, GROUPS, Member, group_node, is_isolated

_NOIOMMU = "enable_unsafe_noiommu_mode"
_LOG_WORDS = ("vfio", "iommu", "IOMMU", "DMAR", "AMD-Vi", "nterrupt remapping")


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


def try_out(
    host: Host, lane: Lane, members: Collection[Record], shared: Collection[int | None]
) -> None:
    """Let VFIO try the groups of devices that are about to be lent, as their hypervisor will.

    `shared` are groups that the same domain has already: its hypervisor may be about to open them.
    Nodes that the kernel has and that are late are waited for: a trial without them tells nothing, and
    without a device's own nobody could tell at its return who holds it. Another's in its place is none.
    Raises NotAssignableError with the errno and what the kernel's log says, or for a node that does
    not come.
    """
    groups = {r.group: r.address for r in members if r.group is not None and _is_on_vfio(host, r)}
    for group, address in groups.items():
        if group not in shared and is_isolated(host.sysfs, group):
            for node, number in _nodes(host, members, group):
                await_node(host, address, host.path(node), lane.check, number)
            doing = f"try VFIO with IOMMU group {group} of {address}"
            work = partial(_try, host, lane, group, address)
            lane.do(doing, f"{GROUPS}/{group}", host.deadlines.attribute, work)


def _nodes(host: Host, members: Collection[Record], group: int) -> Iterator[tuple[str, str | None]]:
    """The nodes that a trial opens and the members' own, each with its number, where the kernel has them.

    A kernel may do without groups, and from Linux 6.6 on may have a node for each device (holding.py).
    """
    node = group_node(host.sysfs, group)
    for place, path in (
        (f"class/vfio/{node.rpartition('/')[2]}", node),
        ("class/misc/vfio", CONTAINER),
    ):
        if host.sysfs.exists(place):
            yield path, host.sysfs.read(f"{place}/dev")
    for address in (record.address for record in members if record.group == group):
        for path in cdev_nodes(host, address):
            name = path.rpartition("/")[2]
            if number := host.sysfs.read(f"{PCI_DEVICES}/{address}/vfio-dev/{name}/dev"):
                yield path, number


def _is_on_vfio(host: Host, record: Record) -> bool:
    has_device = host.sysfs.exists(f"{PCI_DEVICES}/{record.address}/vfio-dev")
    return record.handed and is_vfio_driver(record.stub, has_device)


def _try(host: Host, lane: Lane, group: int, address: str) -> None:
    try:
        host.try_vfio(group_node(host.sysfs, group))
    except OSError as error:
        lines = lane.kernel.lines(*_LOG_WORDS, address)
        raise _refused(group, address, error, [*dict.fromkeys(lines)]) from error


def _refused(group: int, address: str, error: OSError, said: list[str]) -> NotAssignableError:
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    what = f"{error.filename}: {error.strerror or os.strerror(error.errno or 0)} ({name})"
    kernel = (
        f"; the kernel says: {'; '.join(said)}" if said else "; see what the kernel says (dmesg)"
    )
    return NotAssignableError(
        f"VFIO refuses IOMMU group {group} of {address}, and would refuse it to the hypervisor:"
        f" {what}{kernel}",
        device=address,
        rule="vfio-refuses",
        evidence=[what, *(f"kernel: {line}" for line in said)],
        errno=error.errno,
    )
