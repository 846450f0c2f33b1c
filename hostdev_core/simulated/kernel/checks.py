"""Checks of the values that describe a machine: InputError, which names the value that is wrong."""

import re
from collections.abc import Iterable
from typing import cast

from hostdev_core.errors import InputError
from hostdev_core.model.address import PCIAddress, USBSelector, quoted
from hostdev_core.simulated.kernel.drivers import Driver
from hostdev_core.simulated.kernel.pci import OWN_GROUP, Card
from hostdev_core.simulated.kernel.usb import PLATFORM, Plug

_IDS = "[0-9a-f]{4}:[0-9a-f]{4}"
_FORMS = {
    "id": (_IDS, "8086:10d3"),
    "class_": ("[0-9a-f]{6}", "six hex digits like 020000"),
    "subsystem": (_IDS, "8086:a01f"),
    "revision": ("[0-9a-f]{2}", "two hex digits like 01"),
    "power_control": ("on|auto", "on or auto"),
    "resets": ("(?:[a-z0-9_]+(?: [a-z0-9_]+)*)?", "methods like 'flr bus'"),
}
_NUMBERS = {
    "iommu_group": (OWN_GROUP, 2**31 - 1),
    "header_type": (0, 0x7F),
    "sriov_totalvfs": (0, 0xFFFF),
    "numa_node": (-1, 2**31 - 1),
}
_DRIVER_IDS = r"(?:[0-9a-f]{4}|\*):(?:[0-9a-f]{4}|\*)"
MODULE = "[A-Za-z0-9_-]{1,64}"
RELEASE = "[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}"
INTERFACE = "[0-9]{1,3}[.][0-9]{1,3}"


def names_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """Make a tuple of one name, or of several."""
    return (given,) if isinstance(given, str) else tuple(given)


def check_form(what: str, text: str, form: str, wanted: str) -> None:
    """Raise InputError unless the text has this form."""
    if not re.fullmatch(form, text, re.A):  # re.A: no digits and letters of other alphabets
        raise InputError(f"{what} {quoted(text)} is out of its form; wanted {wanted}")


def check_number(what: str, number: int, least: int, most: int) -> None:
    """Raise InputError unless it is a whole number within its range."""
    if not isinstance(cast("object", number), int):
        raise InputError(f"{what}={quoted(number)} is no whole number")
    if not least <= number <= most:
        raise InputError(f"{what} {number} is out of range; wanted {least} to {most}")


def check_name(what: str, name: str, most: int = 64) -> None:
    """Raise InputError unless it is one printable word or more that can name a file."""
    if not name.isprintable() or "/" in name or name in {"", ".", ".."} or len(name) > most:
        raise InputError(f"{what} {quoted(name)} is no name; wanted at most {most} letters, no /")


def check_card(card: Card) -> None:
    """Raise InputError when something about a PCI function is out of its form."""
    for field, (form, wanted) in _FORMS.items():
        check_form(field.rstrip("_"), getattr(card, field), form, wanted)
    for field, (least, most) in _NUMBERS.items():
        number = getattr(card, field)
        if number is not None:
            check_number(field, number, least, most)
    for address in (card.parent, card.physfn):
        if address is not None:
            PCIAddress.parse(address)
    for name in card.net:
        check_name("network interface", name, 15)  # IFNAMSIZ is 16, with the NUL at the end
    for name in (*card.block, *card.drm, *card.sound):
        check_name("node", name)
    override = card.driver_override  # driver_override_store() takes less than a page
    if override is not None and ("\n" in override or not 0 < len(override.encode()) < 4095):
        raise InputError(f"driver_override {quoted(override)} is no line of 1 to 4094 bytes")


def check_fault(errno: int | None, delay: float | None, count: int) -> None:
    """Raise InputError for a fault that no write can have."""
    if errno is not None:
        check_number("errno", errno, 1, 4095)  # MAX_ERRNO
    check_number("count", count, 1, 2**31)
    if delay is not None and not (isinstance(cast("object", delay), (int, float)) and delay >= 0):
        raise InputError(f"delay={quoted(delay)} is no number of seconds")


def check_plug(plug: Plug) -> None:
    """Raise InputError when something about a USB device is out of its form."""
    USBSelector(port=plug.port).checked()
    check_form("id", plug.id, *_FORMS["id"])
    check_number("bus", plug.bus, 1, 999)
    check_number("device", plug.device, 1, 999)
    if plug.controller != PLATFORM:
        PCIAddress.parse(plug.controller)
    for name, driver in plug.interfaces.items():
        check_form("interface", name, INTERFACE, "a configuration and a number like 1.0")
        if driver is not None:
            check_name("driver", driver)


def check_driver(driver: Driver) -> None:
    """Raise InputError when something about a driver is out of its form."""
    check_name("driver", driver.name)
    if driver.module is not None:
        check_form("module", driver.module, MODULE, "a name like vfio_pci")
    check_ids(driver.ids)


def check_ids(ids: Iterable[str]) -> None:
    """Raise InputError when one of the ids that a driver is to match is out of its form."""
    for text in ids:
        check_form("id", text, _DRIVER_IDS, "8086:10d3, a star for any")
