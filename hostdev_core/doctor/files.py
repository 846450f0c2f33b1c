"""Read what the checks share: the kernel's arguments, folders and modes of files outside /sys."""

import errno
import os
import stat

from hostdev_core.errors import KernelError
from hostdev_core.host import Host
from hostdev_core.kernel.sysfs import IOMMU_GROUPS
from hostdev_core.kernel.vfio import is_isolated

CMDLINE = "proc/cmdline"
_GONE = (FileNotFoundError, NotADirectoryError)


def kernel_words(host: Host) -> list[str]:
    """The kernel's arguments (Documentation/admin-guide/kernel-parameters.rst); none where there are none."""
    return (host.read_text(CMDLINE) or "").split()


def names(host: Host, folder: str) -> list[str]:
    """The names in a folder outside /sys, sorted; none when it is not there.

    KernelError when it is there, or may be, and cannot be listed.
    """
    place = host.path(folder)
    try:
        host.tell_read(f"list {place}")
        return sorted(os.listdir(place))
    except _GONE:
        return []
    except OSError as error:
        raise _unread("list", place, error) from error


def mode(host: Host, path: str) -> int | None:
    """The permissions of a file outside /sys, as chmod(1) has them; None when it is not there.

    KernelError as for `names`.
    """
    place = host.path(path)
    try:
        host.tell_read(f"stat {place}")
        return stat.S_IMODE(os.stat(place).st_mode)
    except _GONE:
        return None
    except OSError as error:
        raise _unread("look at", place, error) from error


def groups(host: Host) -> list[str]:
    """The IOMMU groups that an IOMMU is behind; VFIO's no-IOMMU mode makes others."""
    return [name for name in host.sysfs.names(IOMMU_GROUPS) if is_isolated(host.sysfs, name)]


def said(host: Host, path: str, text: str) -> str:
    """One line of evidence: a file outside /sys, and what stands in it."""
    return f"{host.path(path)}: {text}"


def told(host: Host, path: str, text: str) -> str:
    """The same of a file of the sysfs."""
    return f"{host.sysfs.path(path)}: {text}"


def switched_on(host: Host, module: str, option: str) -> list[str]:
    """Where an option of type bool is on, as evidence: the module's parameter, or, while it is not loaded,
    what modprobe.d(5) and the kernel's arguments give it.

    KernelError when these cannot be read.
    """
    path = f"module/{module}/parameters/{option}"
    value = host.sysfs.read(path)
    if value is not None:
        return [told(host, path, value)] if _is_on(value) else []
    lines = host.modules.configuration.options(module)
    words = [(line.place, word) for line in lines for word in line.words]
    given = [(place, word) for place, word in words if word.partition("=")[0] == option]
    # The last one counts; without a value it is on (param_set_bool in the kernel).
    return [
        f"{place}: {word}" for place, word in given[-1:] if _is_on(word.partition("=")[2] or "y")
    ]


def _is_on(text: str) -> bool:
    """As kstrtobool() in the kernel reads it."""
    return text[:1] in {"Y", "y", "T", "t", "1"} or text[:2].lower() == "on"


def _unread(what: str, place: str, error: OSError) -> KernelError:
    why = error.strerror or errno.errorcode.get(error.errno or 0, "")
    return KernelError(f"cannot {what} {place}: {why}", path=place, value="", errno=error.errno)
