"""Look at the devices of one request: resolve them, read what is read only of devices to be taken,
and ask the backend for its stub and its steps. Nothing is written.
"""

from collections.abc import Callable, Iterable, Sequence

from hostdev_core.address import PCIAddress
from hostdev_core.dependents import find_users, held_by
from hostdev_core.domain import Hostdev, PCIHostdev, USBHostdev
from hostdev_core.errors import (
    DeviceNotFoundError,
    DuplicateDeviceError,
    KernelTimeoutError,
    NotAssignableError,
)
from hostdev_core.executor import Lane, run_lanes
from hostdev_core.host import Host
from hostdev_core.hubs import check_no_hub
from hostdev_core.inventory import Inventory
from hostdev_core.pci import PCIDetails, PCIDevice, read_details
from hostdev_core.usb import USBDevice


def resolve_pci(hostdev: PCIHostdev, inventory: Inventory) -> PCIDevice:
    """The device of a PCI hostdev; DeviceNotFoundError when there is none."""
    device = inventory.pci.get(str(hostdev.address))
    if device is None:
        raise DeviceNotFoundError(
            f"there is no PCI device {hostdev.address}; `hostdev list` shows those there are",
            device=str(hostdev.address),
            rule="unknown-device",
        )
    return device


def resolve_usb(
    host: Host, hostdev: USBHostdev, inventory: Inventory, *, cold_boot: bool
) -> USBDevice | None:
    """The one device that matches; None for a missing one whose startup policy allows that."""
    found = [device for device in inventory.usb.values() if device.matches(hostdev.selector)]
    if len(found) == 1:
        return found[0]
    if found:
        rows = "; ".join(f"{d.port} ({d.number}, serial {d.serial or 'none'})" for d in found)
        raise NotAssignableError(
            f"{len(found)} USB devices match {hostdev}: {rows}. Name one by its port",
            device=str(hostdev),
            rule="ambiguous-device",
        )
    if hostdev.startup_policy == "mandatory" or (
        hostdev.startup_policy == "requisite" and cold_boot
    ):
        check_no_hub(host.sysfs, hostdev.selector, inventory.usb.values())
        raise DeviceNotFoundError(
            f"there is no USB device {hostdev}; `hostdev list` shows those there are",
            device=str(hostdev),
            rule="unknown-device",
        )
    return None


def check_duplicates(names: Iterable[str]) -> None:
    """DuplicateDeviceError when a device is asked for twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DuplicateDeviceError(f"{name} is asked for twice; name each device once")
        seen.add(name)


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
        users = find_users(host, str(address))
        raise KernelTimeoutError(
            f"{address} does not answer: the kernel is at work on it and has not returned within"
            f" {host.deadlines.attribute:g} s{held_by(users)}; nothing was changed",
            path=host.sysfs.path(f"bus/pci/devices/{address}"),
            value="",
            holders=users,
        )
    for error in round_.errors.values():
        raise error
    return round_.results


def names_of(hostdevs: Iterable[Hostdev]) -> str:
    """The hostdevs for a message."""
    return " ".join(str(hostdev) for hostdev in hostdevs)
