"""What is asked for: a domain and the host devices it wants."""

from collections.abc import Iterable
from typing import Literal, cast

import attrs

from hostdev_core.address import PCIAddress, USBSelector, parse_address, quoted
from hostdev_core.errors import InputError, InvalidAddressError

StartupPolicy = Literal["mandatory", "requisite", "optional"]


def _pci_address(value: object) -> PCIAddress:
    if isinstance(value, PCIAddress):
        return PCIAddress.parse(str(value))
    if isinstance(value, str):
        return PCIAddress.parse(value)
    raise InvalidAddressError(f"{quoted(value)} is no PCI address; wanted 0000:01:00.0")


def rule_names(value: object) -> frozenset[str]:
    """The names in an `allow`; InputError for one text, whose letters are not what was meant."""
    if isinstance(value, str):
        raise InputError(f"allow={quoted(value)} is one text; wanted a collection of rule names")
    return frozenset(str(rule) for rule in cast("Iterable[object]", value))


def _check_name(instance: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 255:
        raise InputError(f"{quoted(value)} is no domain name; wanted 1 to 255 printable characters")


def _check_policy(instance: object, attribute: object, value: object) -> None:
    if value not in {"mandatory", "requisite", "optional"}:
        raise InputError(
            f"startup policy {quoted(value)} is unknown; wanted mandatory, requisite or optional"
        )


@attrs.frozen(kw_only=True)
class PCIHostdev:
    """A PCI device that a domain wants.

    `managed`: it is taken from its kernel driver and given back; otherwise it must be detached
    already. `stub` names the stub driver where the backend's choice is not wanted. `allow` names
    the rules whose refusal is passed.
    """

    address: PCIAddress = attrs.field(converter=_pci_address)
    managed: bool = True
    stub: str | None = None
    allow: frozenset[str] = attrs.field(default=frozenset(), converter=rule_names)

    kind = "pci"

    def __str__(self) -> str:
        return str(self.address)


@attrs.frozen(kw_only=True)
class USBHostdev:
    """A USB device that a domain wants; all that is given must match exactly one device.

    `startup_policy` says what a missing device means, as in libvirt: `mandatory` an error,
    `requisite` an error at a cold boot, `optional` none.
    """

    port: str | None = None
    bus: int | None = None
    device: int | None = None
    vendor: str | None = None
    product: str | None = None
    serial: str | None = None
    startup_policy: StartupPolicy = attrs.field(default="mandatory", validator=_check_policy)
    allow: frozenset[str] = attrs.field(default=frozenset(), converter=rule_names)

    kind = "usb"

    def __attrs_post_init__(self) -> None:
        checked = self.selector.checked()
        object.__setattr__(self, "vendor", checked.vendor)
        object.__setattr__(self, "product", checked.product)

    @classmethod
    def of(cls, selector: USBSelector, *, allow: frozenset[str] = frozenset()) -> "USBHostdev":
        """The hostdev that asks for what a selector says."""
        port, bus, device, vendor, product, serial = selector
        return cls(
            port=port,
            bus=bus,
            device=device,
            vendor=vendor,
            product=product,
            serial=serial,
            allow=allow,
        )

    @property
    def selector(self) -> USBSelector:
        """What the device must match."""
        return USBSelector(self.port, self.bus, self.device, self.vendor, self.product, self.serial)

    def __str__(self) -> str:
        return str(self.selector)


Hostdev = PCIHostdev | USBHostdev


def _hostdevs(value: object) -> tuple[Hostdev, ...]:
    if isinstance(value, (str, PCIHostdev, USBHostdev)):
        value = (value,)
    items = tuple(cast("Iterable[object]", value))
    return tuple(
        item if isinstance(item, (PCIHostdev, USBHostdev)) else parse_hostdev(str(item))
        for item in items
    )


@attrs.frozen
class Domain:
    """A virtual machine, by name (and UUID, where its hypervisor has one), and what it wants.

    `hostdevs` may hold texts: `Domain("vm1", ["01:00.0", "1-1.5"])`.
    """

    name: str = attrs.field(validator=_check_name)
    hostdevs: tuple[Hostdev, ...] = attrs.field(default=(), converter=_hostdevs)
    uuid: str | None = attrs.field(default=None, kw_only=True)

    @classmethod
    def of(cls, domain: "Domain | str") -> "Domain":
        """A domain may be given by its name alone."""
        return domain if isinstance(domain, Domain) else cls(domain)


def parse_hostdev(
    text: str, *, managed: bool = True, stub: str | None = None, allow: frozenset[str] = frozenset()
) -> Hostdev:
    """The hostdev for what a person calls a device; InvalidAddressError lists the forms."""
    address = parse_address(text)
    if isinstance(address, PCIAddress):
        return PCIHostdev(address=address, managed=managed, stub=stub, allow=allow)
    return USBHostdev.of(address, allow=allow)
