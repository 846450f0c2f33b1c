"""Xen's PCI back end as a driver, as in drivers/xen/xen-pciback: slots outlive a binding."""

import errno
import re
from collections.abc import Callable, Iterable

from hostdev_core.simulated.kernel.device import Device, fail
from hostdev_core.simulated.kernel.disk import Disk, read

NAME = "pciback"
_SLOT = re.compile(r"\s*(?:([0-9a-fA-F]+):)?([0-9a-fA-F]+):([0-9a-fA-F]+)\.([0-9a-fA-F]+|\*)\s*")


def slots(disk: Disk) -> list[str]:
    """Read the addresses on the list."""
    return (read(_file(disk)) or "").split()


def probe(disk: Disk, device: Device) -> int:
    """Return the errno of its probe: 0 when the device is on the list, or its override names pciback."""
    if device.name not in slots(disk) and device.override != NAME:
        return errno.ENODEV
    add_slot(disk, device.name)  # which stays after the unbind, and seizes the next device there
    return 0


def add_slot(disk: Disk, *addresses: str) -> None:
    """Put addresses on the list, each once."""
    _change(disk, lambda old: [*old, *(new for new in addresses if new not in old)])


def set_slots(disk: Disk, addresses: Iterable[str]) -> None:
    """Replace the list by these addresses."""
    _change(disk, lambda _: [*addresses])


def new_slot(disk: Disk, text: str) -> None:
    """Carry out a write to `new_slot`."""
    add_slot(disk, *_slots(text))


def remove_slot(disk: Disk, text: str) -> None:
    """Carry out a write to `remove_slot`; ENOENT when none of its addresses is on the list."""
    addresses = _slots(text)
    if not set(addresses) & set(slots(disk)):
        fail(errno.ENOENT)
    _change(disk, lambda old: [slot for slot in old if slot not in addresses])


def _change(disk: Disk, change: Callable[[list[str]], list[str]]) -> None:
    with disk.kernel_lock():
        disk.put(_file(disk), "".join(f"{slot}\n" for slot in change(slots(disk))))


def _slots(text: str) -> list[str]:
    """Parse the addresses that a text names; a star is all functions."""
    found = _SLOT.fullmatch(text)
    if found is None:
        fail(errno.EINVAL)
    # The domain may be left out.
    domain, bus, slot = (int(part or "0", 16) for part in found.groups()[:3])
    functions = range(8) if found[4] == "*" else [int(found[4], 16)]
    if slot > 0x1F or max(functions) > 7:
        fail(errno.EINVAL)
    return [f"{domain:04x}:{bus:02x}:{slot:02x}.{function:d}" for function in functions]


def _file(disk: Disk) -> str:
    return f"{disk.sys}/bus/pci/drivers/{NAME}/slots"
