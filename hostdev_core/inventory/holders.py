"""Find the processes that hold a device by its VFIO device or USB node; an incomplete search refuses.

The kernel's own answer comes first: a group's node that opens, an interface that is claimed. Where only a
search of /proc can tell, one that did not see everything raises DeviceInUseError with the reason.
"""

import os
import stat
import time
from collections.abc import Collection, Sequence

from hostdev_core.bus.bus import SAME
from hostdev_core.errors import DeviceInUseError, KernelError, StateError
from hostdev_core.host import Host
from hostdev_core.kernel import statx as statx  # first here, and not in a process that was forked
from hostdev_core.kernel.processes import Identity, Search, find_identity, identity
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.model.device import Device
from hostdev_core.model.record import Record

_A_MOMENT = 0.2  # seconds; udev and lsusb keep a node open no longer
UDEV_SECONDS = 1.0  # how late udev may be with a node when its holders are looked for


def cdev_nodes(host: Host, address: str) -> list[str]:
    """The character devices that a PCI device has with VFIO ("dev/vfio/devices/vfio0")."""
    names = host.sysfs.names(f"{PCI_DEVICES}/{address}/vfio-dev")
    return [f"dev/vfio/devices/{name}" for name in names]


def check_cdev(host: Host, address: str, *, asked: bool, must_see: bool = True) -> None:
    """Raise DeviceInUseError when a process has a device's own VFIO node open, or that is unknown.

    Any number of processes may open it. `asked`: the node of its group was opened, which the kernel
    refuses while a process has the device (drivers/vfio/group.c); then processes that /proc hides do not
    matter. StateError when the kernel has such a node and this process does not see it; not without
    `must_see`, for a device that never was lent.
    """
    known: set[Identity] = set()
    for node in cdev_nodes(host, address):
        name = node.rpartition("/")[2]
        number = f"{PCI_DEVICES}/{address}/vfio-dev/{name}/dev"
        known |= _find_node(host, address, f"a VFIO node for it ({name})", node, number, must_see)
    if not known:
        return
    search = host.search_openers(known)
    if search.found:
        raise held_error(address, [*map(str, search.holders)])
    _check_whole(address, search._replace(hidden=None) if asked else search)


def _find_node(
    host: Host, device: str, what: str, node: str, attribute: str, must_see: bool
) -> set[Identity]:
    """Find a node by the number that the kernel has for it in `attribute`; empty when there is none.

    VFIO has none before Linux 6.6, without CONFIG_VFIO_DEVICE_CDEV and without an IOMMU
    (vfio_device_add() in drivers/vfio/vfio.h). A node of the kernel's that is not seen is a StateError
    with `must_see`, and counts as none without.
    """
    path = host.path(node)
    for seconds in (UDEV_SECONDS, 0.0):  # udev may be about to make it
        known = _see(path)
        number = host.sysfs.read(attribute)
        if known is not None and (number is None or host.is_node(known, number)):
            return {known}
        if number is None or not must_see:
            return set()
        host.udev.wait_for(path, seconds, number)
    raise unseen_error(host, device, what, node)


def _see(path: str) -> Identity | None:
    """Read the identity of a node; None when there is none, KernelError when it cannot be looked at."""
    try:
        return identity(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise KernelError(
            f"cannot look at {path}: {error.strerror}; who has it open is not known",
            path=path,
            value="",
            errno=error.errno,
        ) from error


def unseen_error(host: Host, device: str, what: str, node: str) -> StateError:
    """Build the error for a node that the kernel has and that is not at its path for this process."""
    known = find_identity(host.path(node))
    is_ = "cannot be seen" if known is None else "is no node of it"
    if known is not None and known[0] == stat.S_IFCHR:
        is_ = f"is the node of another device ({_number(known)})"
    return StateError(
        f"{device}: the kernel has {what}, but {host.path(node)} {is_}, and so it cannot be known who"
        " holds it; nothing was changed. Run this where the machine's own /dev is mounted"
    )


def _number(known: Identity) -> str:
    return f"{os.major(known[1])}:{os.minor(known[1])}"


def check_claimed(host: Host, device: Device) -> None:
    """Raise DeviceInUseError for a device that the kernel shows as claimed by a process, such as a guest."""
    bus = host.buses[device.kind]
    if claims := bus.claims(device):
        node = bus.node(device)
        known = find_identity(host.path(node)) if node else None
        openers = host.openers({known} if known else ())
        raise held_error(device.name, [*map(str, openers)], claims)


def check_node(host: Host, record: Record) -> None:
    """Raise DeviceInUseError for a lent device whose own node its guest, or any process, still has open.

    Not for a device that is gone or replaced. One that was plugged in again is the same: its guest may
    have opened it again.
    """
    bus = host.buses[record.kind]
    device, seconds = bus.read(record.address), host.deadlines.attribute
    if device is None or bus.identify(record, device, seconds) not in SAME:
        return
    check_claimed(host, device)
    node = bus.node(device)
    if node is None:
        return
    number = f"{bus.path(record.address)}/dev"
    nodes = _find_node(host, record.address, "a node for it", node, number, True)
    search = find_lasting(host, nodes)
    if search.found:
        raise held_error(record.address, [*map(str, search.holders)])
    _check_whole(record.address, search)


def find_lasting(host: Host, nodes: Collection[Identity]) -> Search:
    """Find the processes that have one of these nodes open for long, not as udev and lsusb for a look."""
    end = time.monotonic() + host.deadlines.attribute
    search = host.search_openers(nodes) if nodes else Search()
    if not search.found:
        return search
    time.sleep(_A_MOMENT)
    return host.search_openers(nodes, max(0.0, end - time.monotonic()))


def held_error(
    device: str, holders: Sequence[str], evidence: Sequence[str] = ()
) -> DeviceInUseError:
    """Build the error for a device that a running process or guest has."""
    names = ", ".join(holders) or "a process that cannot be seen from here"
    return DeviceInUseError(
        f"{device} is held by {names}; end it, or take the device from it, first",
        device=device,
        holders=holders,
        rule="held",
        evidence=[*holders, *evidence],
    )


def _check_whole(device: str, search: Search) -> None:
    """Raise DeviceInUseError when a search without a find did not see all processes."""
    if why := search.cut or search.hidden:
        raise DeviceInUseError(
            f"{device} may be held by a process: whether one has it open cannot be told, since {why};"
            " try again, as root and where /proc shows all processes",
            device=device,
            rule="held",
            evidence=[why],
        )
