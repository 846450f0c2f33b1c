"""Find PCI devices that are about to be taken, and read their details, which may wake or hang them."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from hostdev_core.bus.pci import read_details
from hostdev_core.errors import DeviceNotFoundError, KernelError, KernelTimeoutError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.inventory.users import find_users, held_by
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDetails, PCIDevice
from hostdev_core.model.domain import PCIHostdev
from hostdev_core.runtime.lanes import Lane, run_lanes


def resolve_pci(host: Host, hostdev: PCIHostdev, inventory: Inventory) -> PCIDevice:
    """Find the device of a PCI hostdev; DeviceNotFoundError when there is none."""
    name = str(hostdev.address)
    device = inventory.pci.get(name)
    if device is None:
        # KernelError where sysfs shows no devices at all: this one may be there then.
        host.sysfs.check_seen(PCI_DEVICES)
        raise DeviceNotFoundError(
            f"there is no PCI device {name}; `hostdev list` shows those there are",
            device=name,
            rule="unknown-device",
        )
    return device


def read_all(host: Host, addresses: Sequence[PCIAddress]) -> dict[PCIAddress, PCIDetails]:
    """Read the details of several devices, in parallel, within the deadline of an attribute.

    Raises KernelTimeoutError for a device whose lock is kept.
    """

    def read(address: PCIAddress, lane: Lane) -> PCIDetails:
        answer: list[PCIDetails] = []
        lane.do(
            f"read {lane.key}",
            f"bus/pci/devices/{lane.key}",
            host.deadlines.attribute,
            lambda: answer.append(read_details(host.sysfs, address)),
        )
        return answer[0]

    names = {str(address): address for address in addresses}
    report = run_lanes({name: partial(read, address) for name, address in names.items()})
    if report.interrupted is not None:
        raise report.interrupted
    for address in report.late:
        users: tuple[str, ...] = ()
        with suppress(KernelError):  # the users are for the message only
            users = find_users(host, address)
        raise KernelTimeoutError(
            f"{address} does not answer: the kernel is at work on it and has not returned within"
            f" {host.deadlines.attribute:g} s{held_by(users)}; nothing was changed. See what the kernel says"
            " of it (dmesg), and try again when it has returned; where it never does, reboot",
            path=host.sysfs.path(f"bus/pci/devices/{address}"),
            value="",
            holders=users,
        )
    for error in report.errors.values():
        raise error
    return {names[name]: details for name, details in report.results.items()}
