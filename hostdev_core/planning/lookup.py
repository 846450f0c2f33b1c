"""Look at the devices of one request: resolve them, read what is read only of devices to be taken,
and ask the backend for its stub and its steps. Nothing is written.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from hostdev_core.bus.hubs import check_no_hub
from hostdev_core.bus.pci import read_details
from hostdev_core.bus.usb import NOT_ASKED, PATIENCE, check_answered
from hostdev_core.errors import (
    DeviceNotFoundError,
    DuplicateDeviceError,
    KernelError,
    KernelTimeoutError,
    NotAssignableError,
)
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.inventory.users import find_users, held_by
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDetails, PCIDevice, USBDevice
from hostdev_core.model.domain import Hostdev, PCIHostdev, USBHostdev
from hostdev_core.runtime.lanes import Lane, run_lanes

Device = PCIDevice | USBDevice
Pairs = Sequence[tuple[Hostdev, Device]]


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


def resolve_usb(
    host: Host, hostdev: USBHostdev, inventory: Inventory, *, cold_boot: bool
) -> USBDevice | None:
    """The one device that matches; None for a missing one whose startup policy allows that.

    Devices are asked for their serial only where all else that is given is so.
    """
    wanted = hostdev.selector
    rest = wanted._replace(serial=None)
    found = [device for device in inventory.usb.values() if device.matches(rest)]
    if wanted.serial is not None:
        found = [d for d in ask_usb(host, hostdev, found) if d.matches(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        told = host.usb_texts.fill(found, PATIENCE)
        rows = "; ".join(f"{d.port} ({d.number}, serial {_serial(d)})" for d in told)
        raise NotAssignableError(
            f"{len(found)} USB devices match {hostdev}: {rows}. Name one by its port",
            device=str(hostdev),
            rule="ambiguous-device",
        )
    if hostdev.startup_policy == "mandatory" or (
        hostdev.startup_policy == "requisite" and cold_boot
    ):
        check_no_hub(host.sysfs, host.usb_texts, hostdev.selector, inventory.usb.values())
        raise DeviceNotFoundError(
            f"there is no USB device {hostdev}; `hostdev list` shows those there are",
            device=str(hostdev),
            rule="unknown-device",
        )
    return None


def _serial(device: USBDevice) -> str:
    return "unknown: it does not answer" if device.unread else device.serial or "none"


def ask_usb(
    host: Host, wanted: USBHostdev, devices: Sequence[USBDevice], *, needed: bool = True
) -> list[USBDevice]:
    """The devices with what they call themselves, asked within the deadline of an attribute.

    Raises KernelTimeoutError for one that does not answer: it may be the one that is `wanted`. Where
    that is not `needed`, a device that could not even be asked (no thread) is known by its directory.
    """
    asked = host.usb_texts.fill(devices, host.deadlines.attribute) if devices else []
    for device in asked:
        if needed or not (device.unread or "").startswith(NOT_ASKED):
            check_answered(host.sysfs, device, wanted)
    return asked


def ask_fresh(
    host: Host, fresh: Pairs, pairs: Sequence[tuple[Hostdev, Device | None]]
) -> tuple[Pairs, tuple[tuple[Hostdev, Device | None], ...]]:
    """What is to be taken, and all pairs with it: its USB devices with their serials, to be recorded."""
    told: dict[str, Device] = {}
    for hostdev, device in fresh:
        if isinstance(hostdev, USBHostdev) and isinstance(device, USBDevice):
            (asked,) = ask_usb(host, hostdev, [device], needed=False)
            told[device.port] = asked._replace(unread=None)
    return (
        [(hostdev, told.get(device.name, device)) for hostdev, device in fresh],
        tuple((h, d and told.get(d.name, d)) for h, d in pairs),
    )


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


def names_of(hostdevs: Iterable[Hostdev]) -> str:
    """The hostdevs for a message."""
    return " ".join(str(hostdev) for hostdev in hostdevs)
