"""Requests: a domain and the host devices it wants."""

from collections.abc import Iterable
from enum import Flag, auto
from typing import Literal, cast

import attrs

from hostdev_core.errors import InputError, InvalidAddressError
from hostdev_core.model.address import PCIAddress, USBSelector, is_word, parse_address, quoted
from hostdev_core.model.device import Device, PCIDevice, USBDevice
from hostdev_core.model.names import is_stub_name

StartupPolicy = Literal["mandatory", "requisite", "optional"]


def _pci_address(value: str | PCIAddress) -> PCIAddress:
    if isinstance(value, PCIAddress):
        return PCIAddress.parse(str(value))
    if isinstance(cast("object", value), str):
        return PCIAddress.parse(value)
    raise InvalidAddressError(f"{quoted(value)} is no PCI address; wanted 0000:01:00.0")


def rule_names(value: Iterable[str]) -> frozenset[str]:
    """The names in an `allow`; InputError for what is none, or one text: its letters are not meant."""
    if isinstance(value, str) or not isinstance(cast("object", value), Iterable):
        raise InputError(f"allow={quoted(value)} is no collection of rule names")
    rules = [*cast("Iterable[object]", value)]
    for rule in rules:
        if not is_word(rule) or " " in str(rule):
            raise InputError(f"{quoted(rule)} is no rule; wanted one word")
    return frozenset(cast("list[str]", rules))


def _check_name(instance: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    if not is_word(value):
        raise InputError(f"{quoted(value)} is no domain name; wanted 1 to 255 printable characters")


def _check_uuid(instance: object, attribute: "attrs.Attribute[str | None]", value: object) -> None:
    if value is not None and not is_word(value):
        raise InputError(f"{quoted(value)} is no UUID; wanted 1 to 255 printable characters")


def _check_stub(instance: object, attribute: "attrs.Attribute[str | None]", value: object) -> None:
    if value is not None and not is_stub_name(value):
        raise InputError(f"{quoted(value)} is no stub driver; wanted a name like vfio-pci")


def _check_managed(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, bool):
        raise InputError(f"managed={quoted(value)} is neither True nor False")


def _check_policy(instance: object, attribute: object, value: object) -> None:
    if value not in ("mandatory", "requisite", "optional"):
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
    managed: bool = attrs.field(default=True, validator=_check_managed)
    stub: str | None = attrs.field(default=None, validator=_check_stub)
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
        """Make the hostdev that asks for the device of a selector."""
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
        """The parts that the device must match."""
        return USBSelector(self.port, self.bus, self.device, self.vendor, self.product, self.serial)

    def __str__(self) -> str:
        return str(self.selector)


Hostdev = PCIHostdev | USBHostdev
Wanted = str | PCIHostdev | USBHostdev | Device | PCIAddress | USBSelector
WantedOnes = Wanted | Iterable[Wanted]
_ONE = (str, PCIHostdev, USBHostdev, PCIDevice, USBDevice, PCIAddress, USBSelector)


def to_hostdevs(value: WantedOnes) -> tuple[Hostdev, ...]:
    """The hostdevs that are meant, in order, by hostdevs, texts, addresses or devices.

    InputError for what is none of these.
    """
    if isinstance(value, _ONE) or _is_of_another_bus(value):
        return (_to_hostdev(cast("Wanted", value)),)
    if not isinstance(cast("object", value), Iterable):
        raise InputError(f"hostdevs={quoted(value)} is no collection of devices")
    return tuple(_to_hostdev(item) for item in cast("Iterable[Wanted]", value))  # pyright: ignore[reportUnnecessaryCast]  # mypy sees its fields


def _is_of_another_bus(item: object) -> bool:
    """Whether it is a hostdev of a bus that the host has beside these: it has a kind, and an `allow`."""
    return isinstance(getattr(item, "kind", None), str) and hasattr(item, "allow")


def pci_hostdevs(value: WantedOnes) -> tuple[PCIHostdev, ...]:
    """Those of them that are PCI hostdevs."""
    return tuple(hostdev for hostdev in to_hostdevs(value) if isinstance(hostdev, PCIHostdev))


def usb_hostdevs(value: WantedOnes) -> tuple[USBHostdev, ...]:
    """Those of them that are USB hostdevs."""
    return tuple(hostdev for hostdev in to_hostdevs(value) if isinstance(hostdev, USBHostdev))


def _to_hostdev(item: Wanted) -> Hostdev:
    """One hostdev; a device is meant by the place where it is."""
    if isinstance(item, (PCIHostdev, USBHostdev)) or _is_of_another_bus(item):
        return cast("Hostdev", item)
    if isinstance(item, USBSelector):
        return USBHostdev.of(item)
    if isinstance(item, (PCIDevice, USBDevice, PCIAddress)):
        item = item.name if isinstance(item, (PCIDevice, USBDevice)) else str(item)
    return parse_hostdev(item)


class PrepareFlags(Flag):
    """How devices are prepared.

    COLD_BOOT: the domain starts, it is not hot-plugged into (the startup policy `requisite` depends
    on it). WHOLE_GROUP: siblings that keep an IOMMU group from being lent are taken too.
    ALLOW_SAME_OWNER: what the domain has already is no error. REQUIRE_RESET: a device that cannot be
    reset is refused.
    """

    NONE = 0
    COLD_BOOT = auto()
    WHOLE_GROUP = auto()
    ALLOW_SAME_OWNER = auto()
    REQUIRE_RESET = auto()


@attrs.frozen
class Domain:
    """A virtual machine, by name (and UUID, where its hypervisor has one), and the devices it wants.

    `hostdevs` may hold texts, `Domain("vm1", ["01:00.0", "1-1.5"])`, and devices that were listed.
    """

    name: str = attrs.field(validator=_check_name)
    hostdevs: tuple[Hostdev, ...] = attrs.field(default=(), converter=to_hostdevs)
    uuid: str | None = attrs.field(default=None, kw_only=True, validator=_check_uuid)

    @classmethod
    def of(cls, domain: "Domain | str") -> "Domain":
        """Take a domain, or make one of its name alone."""
        return domain if isinstance(domain, Domain) else cls(domain)


def parse_hostdev(
    text: str, *, managed: bool = True, stub: str | None = None, allow: frozenset[str] = frozenset()
) -> Hostdev:
    """Make a hostdev of the text by which a person names a device; InvalidAddressError lists the forms."""
    address = parse_address(text)
    if isinstance(address, PCIAddress):
        return PCIHostdev(address=address, managed=managed, stub=stub, allow=allow)
    return USBHostdev.of(address, allow=allow)
