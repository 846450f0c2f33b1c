"""Wait for the nodes that guests open, and try VFIO groups as a guest would, before a device is lent."""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial

from hostdev_core.errors import NotAssignableError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import check_there
from hostdev_core.inventory.holders import cdev_nodes
from hostdev_core.kernel.sysfs import IOMMU_GROUPS, PCI_DEVICES
from hostdev_core.kernel.vfio import CONTAINER, is_isolated
from hostdev_core.model.assignment import Assignment
from hostdev_core.model.device import is_vfio_driver
from hostdev_core.model.record import Record
from hostdev_core.runtime.lanes import Lane

_LOG_WORDS = ("vfio", "iommu", "IOMMU", "DMAR", "AMD-Vi", "nterrupt remapping")
_GLANCE = 1.0  # seconds; a wait is interrupted so often, to notice that its call was cancelled


def wait_for_node(
    host: Host, assignment: Assignment, check: Callable[[], object] = lambda: None
) -> None:
    """Wait until the node that an assignment names is there; NotAssignableError when it does not come.

    The deadline is that of an attribute; `check` as in `await_node`.
    """
    device, node = assignment.device, assignment.node
    if device is not None and node is not None and not host.has_node(node):
        await_node(host, device.name, node, check)


def await_node(
    host: Host,
    device: str,
    node: str,
    check: Callable[[], object] = lambda: None,
    number: str | None = None,
) -> None:
    """Wait until the path of a node that a device's guest opens is there, within the same deadline.

    `check` is called each second, and ends the wait by raising. A node of another device than that of
    `number` ("511:0") does not count.
    """
    if host.has_node(node, number):
        return
    seconds = host.deadlines.attribute
    end = time.monotonic() + seconds
    while not host.udev.wait_for(node, max(0.0, min(_GLANCE, end - time.monotonic())), number):
        check()
        if time.monotonic() >= end:
            instead = ", and another device's stands there" if host.has_node(node) else ""
            raise NotAssignableError(
                f"{device} has no node {node}, which its guest opens: it has not appeared within"
                f" {seconds:g} s{instead}; see what makes /dev here (devtmpfs, udev, a container's own)",
                device=device,
                rule="no-node",
                evidence=(node,),
            )


def try_out(
    host: Host, lane: Lane, members: Collection[Record], shared: Collection[int | None]
) -> None:
    """Let VFIO try the groups of devices that are about to be lent, as their hypervisor will.

    `shared` are groups that the same domain has already, and that are not tried: its hypervisor may be
    about to open them. Nodes that the kernel has and /dev has not yet are waited for: a trial without
    them proves nothing, and without a device's own node its holders could not be found at its return.
    Raises NotAssignableError with the errno and the lines of the kernel's log, or for a node that does
    not come.
    """
    groups = {r.group: r.address for r in members if r.group is not None and _is_on_vfio(host, r)}
    for group, address in groups.items():
        if group not in shared and is_isolated(host.sysfs, group):
            own = f"dev/vfio/{group}"

            def check() -> None:
                lane.check()
                check_there(host, members)  # one that was pulled gets no node

            for node, number in _nodes(host, members, group, own):
                await_node(host, address, host.path(node), check, number)
            doing = f"try VFIO with IOMMU group {group} of {address}"
            work = partial(_try, host, lane, group, address, own)
            lane.do(doing, f"{IOMMU_GROUPS}/{group}", host.deadlines.attribute, work)


def _nodes(
    host: Host, members: Collection[Record], group: int, node: str
) -> Iterator[tuple[str, str | None]]:
    """Yield the nodes that a trial opens, and the members' own, each with its number, if the kernel has them.

    A kernel may do without groups, and from Linux 6.6 on may have a node for each device.
    """
    for place, path in (
        (f"class/vfio/{node.rpartition('/')[2]}", node),
        ("class/misc/vfio", CONTAINER),
    ):
        number = host.sysfs.read(f"{place}/dev")
        if number is not None or host.sysfs.exists(place):
            yield path, number
    for address in (record.address for record in members if record.group == group):
        for path in cdev_nodes(host, address):
            name = path.rpartition("/")[2]
            if number := host.sysfs.read(f"{PCI_DEVICES}/{address}/vfio-dev/{name}/dev"):
                yield path, number


def _is_on_vfio(host: Host, record: Record) -> bool:
    if not record.handed or is_vfio_driver(record.stub):
        return record.handed
    return host.sysfs.exists(f"{PCI_DEVICES}/{record.address}/vfio-dev")


def _try(host: Host, lane: Lane, group: int, address: str, node: str) -> None:
    try:
        host.try_vfio(node)
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
