"""Reads that may hang in the kernel, made in another process, which is left behind then.

Attributes whose read takes the device's lock are such, and udev's properties.
"""

from hostdev_core.errors import KernelError
from hostdev_core.runtime.in_subprocess import PATIENCE, ask_in_subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.cli.descriptions import Description
    from hostdev_core.host import Host


def describe_locked(host: "Host", kind: str, address: str, *, busy: bool) -> "Description":
    """Read the attributes that take the device's lock; `unread` says why they were not read."""
    if busy:
        return {"udev": {}, "unread": "the kernel or an operation is at work on it"}

    def ask() -> "Description":
        bus = host.buses[kind]
        found: Description = {"unread": None}
        if bus.has_steps:
            try:
                found["driver_override"] = bus.driver_override(address)
                found["sriov_numvfs"] = host.sysfs.read(f"{bus.path(address)}/sriov_numvfs")
            except KernelError as error:
                return {"unread": str(error)}
        return found

    answer = ask_in_subprocess(ask, PATIENCE)
    if not answer:
        return {"udev": {}, "unread": f"the kernel does not answer within {PATIENCE:g} s"}
    return {**answer, "udev": _udev(host, kind, address)}


def _udev(host: "Host", kind: str, address: str) -> "Description":
    """Read udev's properties, of the running machine only; empty where they cannot be had."""
    if host.root != "/":
        return {}
    folder = host.sysfs.path(host.buses[kind].path(address))
    return ask_in_subprocess(lambda: {**host.udev.properties(folder)}, PATIENCE)
