"""Look at PCI devices that are about to be taken: find them, and read what may wake or hang them."""

from collections.abc import Callable, Sequence
from contextlib import suppress

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
    """The device of a PCI hostdev; DeviceNotFoundError when there is none."""
    device = inventory.pci.get(str(hostdev.address))
    if device is None:
        host.sysfs.check_seen(PCI_DEVICES)
        raise DeviceNotFoundError(
            f"there is no PCI device {hostdev.address}; `hostdev list` shows those there are",
            device=str(hostdev.address),
            rule="unknown-device",
        )
    return device


def read_all(host: Host, addresses: Sequence[PCIAddress]) -> dict[PCIAddress, PCIDetails]:
    """The details of several devices, read in parallel under the deadline of an attribute.

    Raises KernelTimeoutError for a device whose lock somebody keeps.
    """

    def job(address: PCIAddress) -> Callable[[Lane], PCIDetails]:
        def read(lane: Lane) -> PCIDetails:
            answer: list[PCIDetails] = []
            lane.do(
                f"read {address}",
                f"bus/pci/devices/{address}",
                host.deadlines.attribute,
                lambda: answer.append(read_details(host.sysfs, address)),
            )
            return answer[0]

        return read

    round_ = run_lanes({address: job(address) for address in addresses})
    if round_.interrupted is not None:
        raise round_.interrupted
    for address in round_.late:
        users: tuple[str, ...] = ()
        with suppress(KernelError):  # who uses it is for the message only
            users = find_users(host, str(address))
        raise KernelTimeoutError(
            f"{address} does not answer: the kernel is at work on it and has not returned within"
            f" {host.deadlines.attribute:g} s{held_by(users)}; nothing was changed. See what the kernel says"
            " of it (dmesg), and try again when it has returned; where it never does, reboot",
            path=host.sysfs.path(f"bus/pci/devices/{address}"),
            value="",
            holders=users,
        )
    for error in round_.errors.values():
        raise error
    return round_.results
