"""Find VFIO's node of an IOMMU group, and try it as a hypervisor does before it opens a device.

Structures and numbers: include/uapi/linux/vfio.h in the kernel. No device is opened, so none is reset.
"""

import errno
import fcntl
import os
import struct
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import NamedTuple

from hostdev_core.kernel.sysfs import IOMMU_GROUPS, Sysfs

Opened = Callable[[str, int], AbstractContextManager[int]]
CONTAINER = "dev/vfio/vfio"
TYPE1, TYPE1_V2 = 1, 3
_VIABLE = 1
# A trial says nothing where the group or its DMA is in use already, or the kernel has no containers.
_NO_TRIAL = frozenset(
    {errno.EBUSY, errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EACCES, errno.EPERM}
)
# _IO(';', 100) and so on; "no data" has a bit of its own on these (asm/ioctl.h).
_OTHER_MACHINES = ("ppc", "mips", "sparc", "alpha")
_BASE = 0x3B64 | (0x20000000 if os.uname().machine.startswith(_OTHER_MACHINES) else 0)
_CHECK_EXTENSION, _SET_IOMMU, _GET_STATUS, _SET_CONTAINER = range(_BASE + 1, _BASE + 5)


class Member(NamedTuple):
    """A device of an IOMMU group that is no PCI device, and its kernel driver."""

    name: str
    bus: str
    kernel_driver: str


def is_isolated(sysfs: Sysfs, group: int | str) -> bool:
    """Whether an IOMMU is behind the group; VFIO's no-IOMMU mode makes groups of its own name.

    KernelError where that cannot be read: nothing may be lent then.
    """
    return sysfs.read(f"{IOMMU_GROUPS}/{group}/name") != "vfio-noiommu"


def group_node(sysfs: Sysfs, group: int | str) -> str:
    """Return the path of the group's node below the root: "dev/vfio/8", or "dev/vfio/noiommu-0"."""
    return f"dev/vfio/{group}" if is_isolated(sysfs, group) else f"dev/vfio/noiommu-{group}"


class RefusedError(OSError):
    """VFIO refuses a call; `filename` is that call's name."""


def attempt(container: str, group: str, opened: Opened) -> None:
    """Put a group into a container of VFIO, set up its IOMMU, and close both again.

    `opened` opens a node with these flags for a block. Raises RefusedError with the kernel's errno.
    Returns where it cannot be tried: another process has the group, there is no such node, or the IOMMU
    is of a type that x86 and ARM do not have.
    """
    with ExitStack() as stack:
        try:
            box, member = (
                stack.enter_context(opened(path, os.O_RDWR)) for path in (container, group)
            )
        except OSError as error:
            if error.errno in _NO_TRIAL:
                return
            raise
        status = array("I", [8, 0])
        _call("VFIO_GROUP_GET_STATUS", lambda: fcntl.ioctl(member, _GET_STATUS, status))
        if not status[1] & _VIABLE:
            raise RefusedError(
                errno.EPERM, "the IOMMU group is not viable", "VFIO_GROUP_GET_STATUS"
            )
        into = struct.pack("i", box)
        _call("VFIO_GROUP_SET_CONTAINER", lambda: fcntl.ioctl(member, _SET_CONTAINER, into))
        for kind in (TYPE1_V2, TYPE1):
            if fcntl.ioctl(box, _CHECK_EXTENSION, kind):
                _call("VFIO_SET_IOMMU", partial(fcntl.ioctl, box, _SET_IOMMU, kind))
                return


def _call(name: str, call: Callable[[], object]) -> None:
    try:
        call()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise RefusedError(error.errno, error.strerror, name) from error
