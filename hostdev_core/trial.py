"""A trial of VFIO: what a hypervisor does with an IOMMU group before it opens a device there.

Structures and numbers: include/uapi/linux/vfio.h in the kernel. No device is opened, so none is reset.
"""

import errno
import fcntl
import os
import struct
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from hostdev_core.forks import close_private, open_private

TYPE1, TYPE1_V2 = 1, 3
_VIABLE = 1
# Who has the group or its DMA already is no business of a trial; nor is a kernel without containers.
_NO_TRIAL = frozenset(
    {errno.EBUSY, errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EACCES, errno.EPERM}
)
# _IO(';', 100) and so on; "no data" has a bit of its own on these (asm/ioctl.h).
_OTHER_MACHINES = ("ppc", "mips", "sparc", "alpha")
_BASE = 0x3B64 | (0x20000000 if os.uname().machine.startswith(_OTHER_MACHINES) else 0)
_CHECK_EXTENSION, _SET_IOMMU, _GET_STATUS, _SET_CONTAINER = range(_BASE + 1, _BASE + 5)


class RefusedError(OSError):
    """VFIO refuses; `filename` is the call that did."""


def attempt(container: str, group: str) -> None:
    """Put a group into a container of VFIO and set up its IOMMU, and let go of both at once.

    Raises RefusedError with the kernel's errno. Nothing is said where it cannot be tried: somebody has the
    group, there is no such node, or an IOMMU that x86 and ARM do not have.
    """
    with ExitStack() as stack:
        try:
            box, member = (_open(stack, path) for path in (container, group))
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


def _open(stack: ExitStack, path: str) -> int:
    fd = open_private(partial(os.open, path, os.O_RDWR | os.O_CLOEXEC))
    stack.callback(close_private, fd)
    return fd


def _call(name: str, call: Callable[[], object]) -> None:
    try:
        call()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise RefusedError(error.errno, error.strerror, name) from error
