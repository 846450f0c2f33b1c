"""Attributes whose read takes the device's lock, and udev's properties.

Such a read hangs as long as the kernel holds the lock. So they are not read while an operation works on the
device or it is stuck, and else in another process.
"""

from hostdev_core.cli.in_subprocess import ask_in_subprocess
from hostdev_core.errors import KernelError
from hostdev_core.kernel.sysfs import PCI_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.cli.descriptions import Description
    from hostdev_core.host import Host

PATIENCE = 2.0  # seconds


def describe_locked(host: "Host", kind: str, address: str, *, busy: bool) -> "Description":
    """Read the attributes that take the device's lock; `unread` says why they were not read."""
    if busy:
        return {"udev": {}, "unread": "the kernel or an operation is at work on it"}

    def ask() -> "Description":
        from hostdev_core.bus.pci import read_override

        found: Description = {"unread": None}
        if kind == "pci":
            path = f"{PCI_DEVICES}/{address}"
            try:
                found["driver_override"] = read_override(host.sysfs, address)
                found["sriov_numvfs"] = host.sysfs.read(f"{path}/sriov_numvfs")
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
    folder = host.path(f"sys/bus/{kind}/devices/{address}")
    return ask_in_subprocess(lambda: {**host.udev.properties(folder)}, PATIENCE)
