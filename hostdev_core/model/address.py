"""How devices are named: PCI addresses, USB ports, USB numbers, USB ids.

The forms are those of sysfs, lspci and lsusb. A text of any other form raises InvalidAddressError;
none is ever tried as a path.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from hostdev_core.errors import InvalidAddressError

FORMS = (
    "0000:01:00.0 or 01:00.0 (PCI), 1-1.5 (USB port), 001:020 (USB bus:device), 18d1:4e22 (USB ids)"
)
_PCI = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-9a-fA-F])", re.A)
_USB_PORT = re.compile(r"[1-9][0-9]{0,2}-[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,6}", re.A)
_ROOT_HUB = re.compile(r"usb([1-9][0-9]{0,2})", re.A)
_USB_INTERFACE = re.compile(r"([0-9]+-[0-9]+(?:\.[0-9]+)*):[0-9]+\.[0-9]+", re.A)
_USB_NUMBER = re.compile(r"([0-9]{3}):([0-9]{3})", re.A)
_USB_ID = re.compile("[0-9a-fA-F]{4}", re.A)
_USB_IDS = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})", re.A)


class PCIAddress(NamedTuple):
    """A PCI function: domain (up to 32 bits), bus, slot (0-1f), function (0-7)."""

    domain: int
    bus: int
    slot: int
    function: int

    @classmethod
    def parse(cls, text: str) -> "PCIAddress":
        """Read `dddd:bb:ss.f` or `bb:ss.f`; anything else is an InvalidAddressError."""
        match = _match(_PCI, text)
        if match is None:
            what = " but a USB device's" if _names_usb(text) else ""
            raise InvalidAddressError(
                f"{quoted(text)} is no PCI address{what}; wanted 0000:01:00.0"
            )
        domain, bus, slot, function = (int(part or "0", 16) for part in match.groups())
        if slot > 0x1F or function > 7:
            raise InvalidAddressError(
                f"{quoted(text)} is no PCI address: the slot goes up to 1f, the function to 7"
            )
        return cls(domain, bus, slot, function)

    @lru_cache(maxsize=4096)  # noqa: B019  # of values: the same for every host
    def __str__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]  # a cache of it
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


known_address = lru_cache(maxsize=4096)(PCIAddress.parse)  # of texts: the same for every host
"""`PCIAddress.parse` of a text that is met again and again, as a name in sysfs is."""


class USBSelector(NamedTuple):
    """A USB device as a person names it; all that is given must match."""

    port: str | None = None
    bus: int | None = None
    device: int | None = None
    vendor: str | None = None
    product: str | None = None
    serial: str | None = None

    @classmethod
    def parse(cls, text: str) -> "USBSelector":
        """Read `1-1.5`, `001:020` or `18d1:4e22`; anything else is an InvalidAddressError."""
        if _match(_USB_PORT, text):
            return cls(port=text)
        if match := _match(_USB_NUMBER, text):
            return cls(bus=int(match[1]), device=int(match[2]))
        if match := _match(_USB_IDS, text):
            return cls(vendor=match[1].lower(), product=match[2].lower())
        _check_part(text)
        raise InvalidAddressError(f"{quoted(text)} is no USB device; wanted one of: {FORMS}")

    def checked(self) -> "USBSelector":
        """Return it with ids in lower case; InvalidAddressError when a part is out of its form."""
        if not any(part is not None for part in self):
            raise InvalidAddressError(
                f"a USB device needs a port, a number, ids or a serial: {FORMS}"
            )
        if self.port is not None and not _match(_USB_PORT, self.port):
            _check_part(self.port)
            raise InvalidAddressError(f"{quoted(self.port)} is no USB port; wanted 1-1.5")
        for name, value in (("bus", self.bus), ("device", self.device)):
            if value is not None and not _is_number(value):
                raise InvalidAddressError(f"USB {name} {quoted(value)} is no number from 1 to 999")
        for name, text in (("vendor", self.vendor), ("product", self.product)):
            if text is not None and not _match(_USB_ID, text):
                raise InvalidAddressError(f"USB {name} {quoted(text)} is not four hex digits")
        if self.serial is not None and not is_word(self.serial):
            raise InvalidAddressError(f"USB serial {quoted(self.serial)} is no printable text")
        return self._replace(
            vendor=self.vendor and self.vendor.lower(),
            product=self.product and self.product.lower(),
        )

    def __str__(self) -> str:
        parts = [self.port] if self.port else []
        if self.bus is not None or self.device is not None:
            parts.append(f"{_digits(self.bus)}:{_digits(self.device)}")
        if self.vendor is not None or self.product is not None:
            parts.append(f"{self.vendor or '*'}:{self.product or '*'}")
        if self.serial is not None:
            parts.append(f"serial {quoted(self.serial)}")
        return " ".join(parts)


def _digits(number: int | None) -> str:
    return "*" if number is None else f"{number:03}"


def parse_address(text: str) -> PCIAddress | USBSelector:
    """Parse the text by which a person names a device; an InvalidAddressError lists the forms."""
    if _match(_PCI, text):
        return PCIAddress.parse(text)
    _check_part(text)
    try:
        return USBSelector.parse(text)
    except InvalidAddressError:
        raise InvalidAddressError(f"{quoted(text)} names no device; wanted: {FORMS}") from None


def _check_part(text: object) -> None:
    """Raise InvalidAddressError for a name in sysfs of a root hub or a USB interface, naming its kind."""
    if match := _match(_ROOT_HUB, text):
        raise InvalidAddressError(
            f"{quoted(text)} is the root hub of USB bus {match[1]}, and hubs cannot be lent; name what is"
            f" plugged into it, like {match[1]}-1, or lend its controller"
        )
    if match := _match(_USB_INTERFACE, text):
        raise InvalidAddressError(
            f"{quoted(text)} is an interface of USB device {match[1]}, and devices are lent whole; name"
            f" {match[1]}"
        )


def _match(form: re.Pattern[str], text: object) -> re.Match[str] | None:
    """The match of all of a text; None for what is none."""
    return form.fullmatch(text) if isinstance(text, str) else None


def _names_usb(text: object) -> bool:
    return any(_match(form, text) for form in (_USB_PORT, _USB_NUMBER, _USB_IDS))


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 < value < 1000


def is_word(value: object) -> bool:
    """Whether it is a text that can be shown and recorded: 1 to 255 printable characters."""
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()


def quoted(text: object) -> str:
    """A foreign text for a message: escaped, at most 80 characters."""
    try:
        shown = repr(str(text))
    except Exception:  # a foreign object's own; an int of more digits than Python prints
        return f"a {type(text).__name__}"
    return shown if len(shown) <= 80 else shown[:76] + "...'"
