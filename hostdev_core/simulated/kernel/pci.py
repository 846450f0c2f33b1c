"""PCI devices come and go: their directories below sys/devices, links and IOMMU groups."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain, count
from typing import NamedTuple

from hostdev_core.errors import InputError
from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated.kernel import cdevs, usb
from hostdev_core.simulated.kernel.class_devices import settle_class_devices
from hostdev_core.simulated.kernel.device import UNSET, Device, busy_link, find_device, open_lock
from hostdev_core.simulated.kernel.disk import Disk, last_part, link, make, names, read, unlink
from hostdev_core.simulated.kernel.events import note_event

RESET_METHODS = "flr bus"
OWN_GROUP = -1
# What each group of an x86 machine has: the window of message-signalled interrupts.
RESERVED = "0x00000000fee00000 0x00000000feefffff msi\n"
MAX_PATH = 3000  # of a path: links go up and down again, and the kernel takes 4,095


class Card(NamedTuple):
    """A PCI function as it is plugged in; the fields are those of `SimulatedHost.add_pci`.

    `iommu_group` may be `OWN_GROUP`: a new one. `kernel_driver` is the one that it has after each boot.
    """

    address: str
    id: str
    class_: str
    subsystem: str
    revision: str
    iommu_group: int | None
    driver_override: str | None
    power_control: str
    header_type: int
    resets: str
    parent: str | None
    sriov_totalvfs: int
    physfn: str | None
    net: tuple[str, ...]
    numa_node: int
    block: Sequence[str] = ()
    drm: Sequence[str] = ()
    sound: Sequence[str] = ()
    kernel_driver: str | None = None

    @property
    def modalias(self) -> str:
        """The text that drivers are matched with."""
        (vendor, device), (subvendor, subdevice) = self.id.split(":"), self.subsystem.split(":")
        base, sub, interface = self.class_[:2], self.class_[2:4], self.class_[4:]
        numbers = (vendor, device, subvendor, subdevice, base, sub, interface)
        form = "pci:v0000{}d0000{}sv0000{}sd0000{}bc{}sc{}i{}"
        return form.format(*(number.upper() for number in numbers))


def reset_methods(given: bool | str) -> str:
    """The text of `reset_method`: as given, the usual methods for True, or none."""
    if isinstance(given, str):
        return given
    return RESET_METHODS if given else ""


def plug(disk: Disk, card: Card) -> Device:
    """Make the device's directory and links, without any driver."""
    path = _folder(disk, card)
    if len(path) > MAX_PATH:
        raise InputError(f"{card.address} is behind too many bridges, or {disk.root} is too long")
    if os.path.lexists(f"{disk.sys}/bus/pci/devices/{card.address}"):
        raise InputError(f"{card.address} is plugged in already; unplug it first")
    if card.physfn is not None:
        _check_physfn(disk, card.address, card.physfn)
    if card.iommu_group == OWN_GROUP:
        card = card._replace(iommu_group=take_group(disk))
    kept = f"{disk.memory}/devices/{card.address}"
    unlink(kept)
    make(kept, json.dumps(card._asdict()))
    disk.bury(path)  # a killed process may have left it half made
    os.makedirs(f"{path}/power")
    for name, (text, mode) in _attributes(card).items():
        make(f"{path}/{name}", text, mode)
    make(f"{path}/config", _config(card), 0o644)
    link(f"{disk.sys}/bus/pci", f"{path}/subsystem")
    if card.iommu_group is not None:
        join_group(disk, path, card.address, card.iommu_group)
    if card.physfn is not None:
        _join_physfn(disk, path, card.physfn)
    # Last: nobody finds a half-made device.
    link(path, f"{disk.sys}/bus/pci/devices/{card.address}")
    note_event(disk, "add", "pci", card.address)
    return Device(card.address, path, os.stat(path).st_ino)


def unplug(disk: Disk, device: Device) -> None:
    """Remove a device with all that is below it, even while it is in use."""
    for inner in _below(disk, device):
        unplug(disk, inner)
    usb.forget_controller(disk, device.name)
    unlink(f"{disk.sys}/bus/pci/devices/{device.name}")  # first: from here on it is not found
    _leave_physfn(disk, device)
    driver, group = device.driver, device.group
    if driver:
        unlink(f"{disk.sys}/bus/pci/drivers/{driver}/{device.name}")
    settle_class_devices(disk, device, present=False)
    cdevs.drop_device(disk, device)
    disk.bury(device.path)
    if group:
        leave_group(disk, device.name, group)
    for rest in (
        busy_link(disk, device),
        open_lock(disk, device),
        f"{disk.memory}/devices/{device.name}",
        f"{disk.memory}/{domain_key(device)}",
    ):
        unlink(rest)
    note_event(disk, "remove", "pci", device.name)


def domain_key(device: Device) -> str:
    """The key in the kernel's memory for the functions of a domain that a device has made."""
    return f"domain-of-{device.name}"


def _folder(disk: Disk, card: Card) -> str:
    if card.parent is None:
        address = PCIAddress.parse(card.address)
        return f"{disk.sys}/devices/pci{address.domain:04x}:{address.bus:02x}/{card.address}"
    parent = find_device(disk, card.parent)
    if parent is None:
        raise InputError(f"{card.address} hangs on {card.parent}, which is not there; add it first")
    address, bridge = PCIAddress.parse(card.address), PCIAddress.parse(card.parent)
    if address.domain == bridge.domain:
        return f"{parent.path}/{card.address}"
    # A domain of its own behind a device, as drivers/pci/controller/vmd.c makes it.
    return f"{parent.path}/pci{address.domain:04x}:{address.bus:02x}/{card.address}"


def behind(disk: Disk, device: Device) -> list[Device]:
    """List the functions on the other side of a bridge."""
    return _functions(disk, names(device.path))


def in_domains(disk: Disk, device: Device) -> list[Device]:
    """List the functions on the root buses of the domains that a device's driver has made."""
    roots = (name for name in names(device.path) if name.startswith("pci"))
    return _functions(disk, chain.from_iterable(names(f"{device.path}/{root}") for root in roots))


def _below(disk: Disk, device: Device) -> list[Device]:
    """List all devices that go with a device, the VFs of a PF too."""
    virtual = (last_part(f"{device.path}/{name}") or "" for name in _virtual(device))
    return [*behind(disk, device), *in_domains(disk, device), *_functions(disk, virtual)]


def _functions(disk: Disk, found: Iterable[str]) -> list[Device]:
    devices = (find_device(disk, name) for name in found if name.count(":") == 2)
    return [device for device in devices if device]


def _virtual(physical: Device) -> list[str]:
    """Name the links from a PF to its VFs."""
    return [name for name in names(physical.path) if name.startswith("virtfn")]


def _check_physfn(disk: Disk, address: str, name: str) -> None:
    physical = find_device(disk, name)
    if physical is None:
        raise InputError(f"{address} is a function of {name}, which is not there; add it first")
    most = int(read(f"{physical.path}/sriov_totalvfs") or 0)
    if len(_virtual(physical)) >= most:
        raise InputError(f"{name} has no more than {most} virtual functions; {address} is too many")


def _join_physfn(disk: Disk, path: str, name: str) -> None:
    """Make a VF known to its PF, as pci_iov_add_virtfn() in the kernel's drivers/pci/iov.c does."""
    physical = find_device(disk, name)
    assert physical is not None, name
    taken = _virtual(physical)
    number = next(number for number in count() if f"virtfn{number}" not in taken)
    link(physical.path, f"{path}/physfn")
    link(path, f"{physical.path}/virtfn{number}")
    disk.put(f"{physical.path}/sriov_numvfs", f"{len(taken) + 1}\n")


def _leave_physfn(disk: Disk, device: Device) -> None:
    physical = find_device(disk, last_part(f"{device.path}/physfn") or "")
    for path in (f"{physical.path}/{name}" for name in _virtual(physical)) if physical else ():
        if last_part(path) == device.name:
            unlink(path)


def take_group(disk: Disk) -> int:
    """Make a new IOMMU group; small numbers are left free for groups asked for by number."""
    folder = f"{disk.sys}/kernel/iommu_groups"
    for number in count(disk.first_free_group):
        with suppress(FileExistsError):
            os.mkdir(f"{folder}/{number}")
            disk.first_free_group = number + 1
            return number
    raise AssertionError("numbers do not end")


def join_group(disk: Disk, path: str, address: str, group: int, name: str | None = None) -> None:
    """Make a device a member of an IOMMU group, and the group when it is missing; VFIO names its own."""
    folder = f"{disk.sys}/kernel/iommu_groups/{group}"
    with disk.kernel_lock():
        if not os.path.exists(f"{folder}/devices"):
            os.makedirs(f"{folder}/devices")
            make(f"{folder}/type", "DMA-FQ\n", 0o644)
            make(f"{folder}/reserved_regions", RESERVED, 0o444)
            if name is not None:
                make(f"{folder}/name", name, 0o444)
        link(path, f"{folder}/devices/{address}")
        link(folder, f"{path}/iommu_group")


def leave_group(disk: Disk, address: str, group: str) -> None:
    """Take a device out of its group, which goes with its last member."""
    folder = f"{disk.sys}/kernel/iommu_groups/{group}"
    with disk.kernel_lock():
        unlink(f"{folder}/devices/{address}")
        if not names(f"{folder}/devices"):
            disk.bury(folder)


def write_settings(disk: Disk, device: Device, card: Card) -> None:
    """Set a device's writable attributes back to the card's values."""
    for name, (text, mode) in _attributes(card).items():
        if mode & 0o600 == 0o600:  # settings; `remove` and `reset` can only be written
            disk.put(f"{device.path}/{name}", text)


def _attributes(card: Card) -> dict[str, tuple[str, int]]:
    vendor, device = card.id.split(":")
    subvendor, subdevice = card.subsystem.split(":")
    override = UNSET if card.driver_override is None else f"{card.driver_override}\n"
    table = {
        "vendor": (f"0x{vendor}\n", 0o444),
        "device": (f"0x{device}\n", 0o444),
        "subsystem_vendor": (f"0x{subvendor}\n", 0o444),
        "subsystem_device": (f"0x{subdevice}\n", 0o444),
        "class": (f"0x{card.class_}\n", 0o444),
        "revision": (f"0x{card.revision}\n", 0o444),
        "modalias": (f"{card.modalias}\n", 0o444),
        "uevent": (_uevent(card), 0o644),
        "driver_override": (override, 0o644),
        "enable": ("0\n", 0o644),
        "numa_node": (f"{card.numa_node}\n", 0o644),
        "remove": ("", 0o220),
        "power/control": (f"{card.power_control}\n", 0o644),
        "power/runtime_status": ("active\n", 0o444),
    }
    if card.resets:
        table["reset"] = ("", 0o200)
        table["reset_method"] = (f"{card.resets}\n", 0o644)
    if card.sriov_totalvfs:
        table["sriov_totalvfs"] = (f"{card.sriov_totalvfs}\n", 0o444)
        table["sriov_numvfs"] = ("0\n", 0o644)
        table["sriov_drivers_autoprobe"] = ("1\n", 0o644)
    return table


def _uevent(card: Card) -> str:
    return (
        f"PCI_CLASS={int(card.class_, 16):X}\nPCI_ID={card.id.upper()}\n"
        f"PCI_SUBSYS_ID={card.subsystem.upper()}\nPCI_SLOT_NAME={card.address}\n"
        f"MODALIAS={card.modalias}\n"
    )


def _config(card: Card) -> bytes:
    """Make the standard header (PCI 3.0, figure 6-1), little-endian."""
    data = bytearray(64)
    vendor, device = (int(part, 16) for part in card.id.split(":"))
    data[0:4] = vendor.to_bytes(2, "little") + device.to_bytes(2, "little")
    data[8] = int(card.revision, 16)
    data[9:12] = int(card.class_, 16).to_bytes(3, "little")
    data[0x0E] = card.header_type
    return bytes(data)
