"""Read what each device hangs on: its way through sysfs, over root buses, bridges, controllers and hubs.

A device's entry on its bus is a link to its directory, and a directory lies in that of what it hangs on
(Documentation/admin-guide/sysfs-rules.rst): ../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0. A root bus
is named pciDDDD:BB (drivers/pci/probe.c, pci_register_host_bridge); that of a VMD or of another bridge that
makes a domain of its own lies in the bridge's directory. The root hub of USB bus N is usbN
(Documentation/ABI/stable/sysfs-bus-usb).
"""

import re

from hostdev_core.errors import KernelError
from hostdev_core.kernel.sysfs import PCI_DEVICES, USB_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hostdev_core.kernel.sysfs import Sysfs

ROOT_BUS = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
FUNCTION = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
USB = re.compile(r"usb[0-9]+|[0-9]+-[0-9]+(?:\.[0-9]+)*")
_PARTS = (ROOT_BUS, FUNCTION, USB)
Way = tuple[str, ...]


def read_ways(sysfs: "Sysfs") -> list[Way]:
    """Read the way to each PCI function and each USB device or hub, from its root to its own name.

    A USB bus that is not on PCI begins with the name of what it is on. A device whose way cannot be seen,
    or leads through nothing that is known here, stands alone. What is not there has no way.
    """
    return [*_ways(sysfs, PCI_DEVICES, FUNCTION), *_ways(sysfs, USB_DEVICES, USB)]


def _ways(sysfs: "Sysfs", folder: str, named: "re.Pattern[str]") -> "Iterator[Way]":
    with sysfs.directory(folder) as devices:
        for name in devices.names() if devices else ():
            if not named.fullmatch(name):  # a USB interface
                continue
            assert devices is not None
            try:
                target = devices.target(name)
            except KernelError:
                target = name
            if target is not None:
                yield _way(target.split("/"), name)


def _way(parts: "Sequence[str]", name: str) -> Way:
    known = [at for at, part in enumerate(parts) if any(p.fullmatch(part) for p in _PARTS)]
    way = [parts[at] for at in known]
    if not way or way[-1] != name:
        return (name,)
    above = parts[known[0] - 1] if known[0] else ""
    is_elsewhere = USB.fullmatch(way[0]) and above not in {"", "..", "devices"}
    return (above, *way) if is_elsewhere else (*way,)
