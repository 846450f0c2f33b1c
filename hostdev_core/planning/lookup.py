"""Find PCI devices that are about to be taken, and read their details, which may wake or hang them."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from hostdev_core.bus.pci import read_details
from hostdev_core.bus.unknown import no_such_device
from hostdev_core.errors import KernelError, KernelTimeoutError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.inventory.users import find_users, held_by
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDetails, PCIDevice
from hostdev_core.model.domain import PCIHostdev
from hostdev_core.runtime.lanes import Lane, run_lanes

T = TypeVar("T")


def resolve_pci(host: Host, hostdev: PCIHostdev, inventory: Inventory) -> PCIDevice:
    """Find the device of a PCI hostdev; DeviceNotFoundError when there is none."""
    name = str(hostdev.address)
    device = inventory.pci.get(name)
    if device is None:
        # KernelError where sysfs shows no devices at all: this one may be there then.
        host.sysfs.check_seen(PCI_DEVICES)
        raise no_such_device("PCI device", name, host.sysfs.names(PCI_DEVICES))
    return device


def read_all(host: Host, addresses: Sequence[PCIAddress]) -> dict[PCIAddress, PCIDetails]:
    """Read the details of several devices, within the deadline of an attribute for each; see `read_each`."""
    names = {str(address): address for address in addresses}
    found = read_each(host, names, lambda name: read_details(host.sysfs, names[name]))
    return {names[name]: details for name, details in found.items()}


def read_each(host: Host, names: Collection[str], read: Callable[[str], T]) -> dict[str, T]:
    """Read what may wake or hang PCI devices, one after the other in one thread, which may be left behind.

    Raises KernelTimeoutError for a device whose lock is kept: nothing is decided without it.
    """
    found: dict[str, T] = {}
    if not names:
        return found

    def job(lane: Lane) -> None:
        for name in names:
            path, seconds = f"{PCI_DEVICES}/{name}", host.deadlines.attribute
            lane.do(f"read {name}", path, seconds, lambda: found.__setitem__(name, read(name)))  # noqa: B023 - at once

    report = run_lanes({" ".join(names): job})
    if report.interrupted is not None:
        raise report.interrupted
    for lane in report.late.values():
        raise _silent(host, lane.path.rpartition("/")[2])
    for error in report.errors.values():
        raise error
    return found


def _silent(host: Host, address: str) -> KernelTimeoutError:
    """Build the error for a device whose lock is kept, naming its users, as far as they can be found."""
    users: tuple[str, ...] = ()
    with suppress(KernelError):  # the users are for the message only
        users = find_users(host, address)
    return KernelTimeoutError(
        f"{address} does not answer: the kernel is at work on it and has not returned within"
        f" {host.deadlines.attribute:g} s{held_by(users)}; nothing was changed. See what the kernel says"
        " of it (dmesg), and try again when it has returned; where it never does, reboot",
        path=host.sysfs.path(f"{PCI_DEVICES}/{address}"),
        value="",
        holders=users,
    )
