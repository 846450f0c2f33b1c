"""VFIO's side of a binding: group nodes, their exclusive open, and the owner of a group's DMA."""

import errno
import fcntl
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial

from hostdev_core.kernel.vfio import RefusedError
from hostdev_core.runtime.forks import close_private, open_private
from hostdev_core.simulated.kernel import cdevs, late
from hostdev_core.simulated.kernel.device import Device, fail, find_device, members, open_lock
from hostdev_core.simulated.kernel.disk import Disk, link, read, unlink
from hostdev_core.simulated.kernel.drivers import Driver, Drivers
from hostdev_core.simulated.kernel.locks import is_locked, locked
from hostdev_core.simulated.kernel.pci import join_group, leave_group, take_group

NOIOMMU = "vfio-noiommu\n"
_MAJOR = 510  # as the kernel takes it, from the top


def node_path(disk: Disk, group: str) -> str:
    """The node of an IOMMU group."""
    return f"{disk.root}/dev/vfio/{'noiommu-' if _has_no_iommu(disk, group) else ''}{group}"


def _has_no_iommu(disk: Disk, group: str) -> bool:
    return read(f"{disk.sys}/kernel/iommu_groups/{group}/name") == NOIOMMU


def allows_noiommu(disk: Disk) -> bool:
    """Tell whether VFIO binds devices without an IOMMU group: a parameter of its module."""
    path = f"{disk.sys}/module/vfio/parameters/enable_unsafe_noiommu_mode"
    return (read(path) or "").startswith(("Y", "1"))


def settle_own_group(disk: Disk, device: Device, present: bool) -> None:
    """Make or remove the group that VFIO makes for a device without an IOMMU."""
    group = device.group
    if present and group is None and allows_noiommu(disk):
        join_group(disk, device.path, device.name, take_group(disk), NOIOMMU)
    elif not present and group is not None and _has_no_iommu(disk, group):
        _take_node(disk, node_path(disk, group))
        unlink(f"{device.path}/iommu_group")
        leave_group(disk, device.name, group)


def try_group(disk: Disk, drivers: Drivers, name: str) -> None:
    """Put a group into a container: RefusedError where VFIO refuses it; nothing for one that is open."""
    try:
        close_private(open_private(partial(open_group, f"{disk.root}/dev/vfio/{name}")))
    except OSError:
        return
    if _has_host_driver(disk, drivers, name):
        raise RefusedError(errno.EPERM, "the IOMMU group is not viable", "VFIO_GROUP_GET_STATUS")
    regions = read(f"{disk.sys}/kernel/iommu_groups/{name}/reserved_regions") or ""
    # VT-d attaches no device with an RMRR; "direct-relaxable" ones are let pass (intel/iommu.c).
    if any(line.endswith(" direct") for line in regions.splitlines()):
        raise RefusedError(errno.EPERM, os.strerror(errno.EPERM), "VFIO_SET_IOMMU")


def open_group(path: str) -> int:
    """Open a group node; a second open is EBUSY, as long as the first one is open anywhere."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    # The lock stands for the open group: it ends with the last descriptor, in any process.
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        fail(errno.EBUSY)
    return fd


def is_given(driver: Driver | None, device: Device) -> bool:
    """Tell whether a driver makes a VFIO device of its device: VFIO's own, or a vGPU's of its function."""
    if driver is None:
        return False
    return driver.vfio or (driver.gives_vfio and os.path.lexists(f"{device.path}/physfn"))


def settle_group(disk: Disk, drivers: Drivers, group: str) -> None:
    """Make the group's class device and node while a member is on a VFIO driver, else remove them.

    A node that was deleted while its class device is there is not made again: the kernel makes it once.
    """
    path = node_path(disk, group)
    with disk.kernel_lock():
        table = drivers.all()
        found = members(disk, group)
        name = os.path.basename(path)
        place = f"{disk.sys}/devices/virtual/vfio/{name}"
        if not any(is_given(table.get(device.driver or ""), device) for device in found):
            late.drop(disk, path)
            _take_node(disk, path)
        elif not os.path.exists(f"{disk.sys}/class/vfio/{name}"):
            if not os.path.exists(path):
                late.make_node(disk, path, 0o600)
            os.makedirs(place, exist_ok=True)
            disk.put(f"{place}/dev", f"{_MAJOR}:{group}\n")
            os.makedirs(f"{disk.sys}/class/vfio", exist_ok=True)
            link(place, f"{disk.sys}/class/vfio/{name}")


def _take_node(disk: Disk, path: str) -> None:
    """Remove a group's class device and then its node.

    The node goes last: a process killed in between leaves a node without a device, never the reverse.
    """
    name = os.path.basename(path)
    disk.bury(f"{disk.sys}/devices/virtual/vfio/{name}")
    unlink(f"{disk.sys}/class/vfio/{name}")
    unlink(path)


def set_power_control(disk: Disk, device: Device, value: str) -> None:
    """Set power/control as vfio-pci does: "auto" at its probe, "on" at its remove."""
    disk.put(f"{device.path}/power/control", f"{value}\n")


def settle_device(disk: Disk, device: Device, present: bool) -> None:
    """Make or remove the VFIO device of a device."""
    group = device.group
    isolated = group is not None and not _has_no_iommu(disk, group)
    cdevs.settle_device(disk, device, present=present, isolated=isolated)


def is_dma_owned(disk: Disk, group: str) -> bool:
    """Tell whether a virtual machine has the DMA of a group: no host driver may be bound there."""
    return is_locked(_owner_file(disk, group))


@contextmanager
def held(disk: Disk, drivers: Drivers, name: str, open_device: bool) -> Generator[None, None, None]:
    """Hold a device as a running QEMU does, for `SimulatedHost.hold`."""
    device = find_device(disk, name)
    if device is None or device.group is None:
        fail(errno.ENODEV)
    group = device.group
    with ExitStack() as stack:
        stack.callback(close_private, open_private(partial(open_group, node_path(disk, group))))
        with disk.kernel_lock():
            # A probe takes the kernel lock, too: no host driver is bound between look and hold.
            if _has_host_driver(disk, drivers, group):
                fail(errno.EPERM)
            stack.enter_context(locked(_owner_file(disk, group)))
        if open_device:
            stack.enter_context(locked(open_lock(disk, device)))
        yield


def wait_until_closed(disk: Disk, device: Device) -> None:
    """Wait until no process has the device open any more."""
    lock = open_lock(disk, device)
    if os.path.exists(lock):
        with locked(lock, shared=True):
            pass


def _has_host_driver(disk: Disk, drivers: Drivers, group: str) -> bool:
    table = drivers.all()
    bound = ((table.get(device.driver or ""), device) for device in members(disk, group))
    return any(
        driver is not None and not driver.managed_dma and not is_given(driver, device)
        for driver, device in bound
    )


def _owner_file(disk: Disk, group: str) -> str:
    return f"{disk.memory}/owned/{group}"
