"""Find the devices that a person means: by address, port or ids, by a name of the host's, by a pattern."""

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hostdev_core.bus.unknown import no_such_device, usb_names
from hostdev_core.bus.usb_records import recorded_usb
from hostdev_core.errors import DeviceNotFoundError, InvalidAddressError
from hostdev_core.model.address import PCIAddress, USBSelector, parse_address, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hostdev_core.facts.facts import Facts
    from hostdev_core.model.device import Device, PCIDevice, USBDevice
    from hostdev_core.model.record import Record

_PATTERN = "*?["


def find_devices(facts: "Facts", text: str) -> "tuple[Sequence[Device], Sequence[Record]]":
    """Find the devices that `text` means, and the records of devices it means that are not there.

    It is an address in one of the usual forms, the name of a network interface, a disk, a partition or a
    DRM node ("eth0", "/dev/nvme0n1p2"), or a pattern for any of these names ("0000:03:00.*"). Of USB
    devices of the same ids all are meant.

    Raises InvalidAddressError for a text that is none of these, DeviceNotFoundError where there is none.
    """
    if any(letter in text for letter in _PATTERN):
        found = _matching(facts, text)
        absent = [r for r in facts.inventory.absent if fnmatchcase(r.address, text)]
        if not found and not absent:
            raise DeviceNotFoundError(
                f"no device here has a name like {quoted(text)}; `hostdev list` shows those there are",
                device=text,
                rule="unknown-device",
            )
        return found, absent
    try:
        wanted = parse_address(text)
    except InvalidAddressError as error:
        return [_named(facts, text, error)], ()
    return _addressed(facts, wanted)


def names_of(facts: "Facts", device: "Device") -> list[str]:
    """All names by which a device is found, the one of its address first."""
    if device.kind == "pci":
        card: PCIDevice = device  # type: ignore[assignment]
        # In domain 0 the short form, without "0000:", is a name as well.
        own = [card.name, *([] if card.address.domain else [card.name[5:]])]
    else:
        stick: USBDevice = device  # type: ignore[assignment]
        own = [*usb_names([stick])]
    return [*own, *facts.classes.all_names((device.kind, device.name))]


def _matching(facts: "Facts", pattern: str) -> "list[Device]":
    wanted = pattern.removeprefix("/dev/")
    return [
        device
        for device in facts.inventory.devices
        if any(fnmatchcase(name, wanted) for name in names_of(facts, device))
    ]


def _named(facts: "Facts", text: str, error: InvalidAddressError) -> "Device":
    key = facts.classes.find(text.removeprefix("/dev/").removeprefix("dri/"))
    device = facts.inventory.at(key) if key else None
    if device is None:
        raise InvalidAddressError(
            f"{error}; nor has the host a network interface, disk or DRM node of that name on a device"
        )
    return device


def _addressed(
    facts: "Facts", wanted: PCIAddress | USBSelector
) -> "tuple[Sequence[Device], Sequence[Record]]":
    absent = [record for record in facts.inventory.absent if _is_meant(record, wanted)]
    found = [*_present(facts, wanted)]
    if found or absent:
        return found, absent
    if isinstance(wanted, USBSelector):
        from hostdev_core.bus.hubs import check_no_hub

        host = facts.host
        check_no_hub(host.sysfs, host.usb_texts, wanted, facts.inventory.usb.values())
    known = (*facts.inventory.pci, *usb_names(facts.inventory.usb.values()))
    raise no_such_device("device", str(wanted), known)


def _present(facts: "Facts", wanted: PCIAddress | USBSelector) -> "Iterator[Device]":
    if isinstance(wanted, USBSelector):
        yield from (each for each in facts.inventory.usb.values() if each.matches(wanted))
    elif (device := facts.inventory.pci.get(str(wanted))) is not None:
        yield device


def _is_meant(record: "Record", wanted: PCIAddress | USBSelector) -> bool:
    """Tell whether the record of an absent device is one that an address means."""
    if isinstance(wanted, PCIAddress):
        return record.key == ("pci", str(wanted))
    return record.kind == "usb" and recorded_usb(record).matches(wanted)
