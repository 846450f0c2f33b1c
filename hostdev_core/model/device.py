"""Devices that are there, as values: what listing them reads, and what the ledger knows of them."""

import re
from functools import lru_cache
from typing import NamedTuple

from hostdev_core.model.address import PCIAddress, USBSelector

PCI_MODALIAS = re.compile(
    "pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})sv0000([0-9A-F]{4})sd0000([0-9A-F]{4})"
    "bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-F]{2})"
)
# The header type of a configuration space that reads all ones, without its multi-function bit. A virtual
# function's vendor id reads ffff although it answers, so that tells nothing (PCIe 4.0, 9.3.4.1.1).
NO_ANSWER = 0x7F
# What the names of vfio-pci and its variants end in, underscores being dashes.
_VFIO_PCI = ("vfio-pci", "vfio_pci")
_UNKNOWN = ("????", "????", "????", "????", "??", "??", "??")


_UUID = re.compile(r"(?:urn:uuid:)?(\{)?([0-9a-f]{8}(-?)(?:[0-9a-f]{4}\3){3}[0-9a-f]{12})(?(1)\})")


class UsedBy(NamedTuple):
    """The borrower of a device: a domain of one driver.

    `uri` is where the domain was prepared and is for messages; it is no part of the identity.
    """

    domain: str
    driver: str
    uri: str
    uuid: str | None = None

    def is_same_owner(self, other: "UsedBy") -> bool:
        """Same driver and domain name, and the same UUID where both sides have one.

        UUIDs are the same in upper and lower case, with dashes, braces or `urn:uuid:` and without.
        """
        if (self.driver, self.domain) != (other.driver, other.domain):
            return False
        return self.uuid is None or other.uuid is None or _meant(self.uuid) == _meant(other.uuid)

    def __str__(self) -> str:
        uuid = f", UUID {self.uuid}" if self.uuid is not None else ""
        return f"domain {self.domain!r} of {self.driver} ({self.uri}{uuid})"


def is_uuid(text: str) -> bool:
    """Whether it is a UUID in one of the forms that people write."""
    return _UUID.fullmatch(text.strip().lower()) is not None


def _meant(text: str) -> str:
    """A UUID in its one form; what is none as it is."""
    match = _UUID.fullmatch(text.strip().lower())
    return match[2].replace("-", "") if match else text


@lru_cache(maxsize=4096)  # of texts: the same for every host
def _parts_of(modalias: str) -> tuple[str, ...]:
    match = PCI_MODALIAS.match(modalias)
    return match.groups() if match else _UNKNOWN


class PCIDevice(NamedTuple):
    """A PCI function that is there: what listing it reads, and what the ledger knows of it.

    `kernel_driver` None is a device without a driver. `phase`, `used_by` and `stuck` come from the
    ledger. `unread` says why the rest is not known, where only looking is all that is done.
    """

    address: PCIAddress
    modalias: str = ""
    kernel_driver: str | None = None
    iommu_group: int | None = None
    physfn: str | None = None
    is_vfio: bool = False
    used_by: UsedBy | None = None
    phase: str | None = None
    stuck: str | None = None
    unread: str | None = None

    @property
    def kind(self) -> str:
        """The name of its bus in the ledger."""
        return "pci"

    @property
    def name(self) -> str:
        """How a person calls it."""
        return str(self.address)

    @property
    def ids(self) -> str:
        """Vendor and device, "8086:10d3"."""
        vendor, device, *_ = self._parts
        return f"{vendor}:{device}".lower()

    @property
    def subsystem_ids(self) -> str:
        """Vendor and device of the subsystem, "8086:0000"."""
        return f"{self._parts[2]}:{self._parts[3]}".lower()

    @property
    def class_code(self) -> str:
        """Class, subclass and programming interface, "020000"."""
        return "".join(self._parts[4:]).lower()

    @property
    def is_bridge(self) -> bool:
        """Whether its class is a PCI-to-PCI bridge (0604)."""
        return _parts_of(self.modalias)[4:6] == ("06", "04")

    @property
    def gives_vfio(self) -> bool:
        """Whether its host driver hands it to guests itself, as an SR-IOV vGPU's does.

        It has a VFIO device then, and lives as long as it stays on that driver.
        """
        return (
            self.is_vfio
            and self.kernel_driver is not None
            and not is_vfio_driver(self.kernel_driver)
        )

    @property
    def _parts(self) -> tuple[str, ...]:
        return _parts_of(self.modalias)

    @property
    def blocks_group(self) -> bool:
        """Whether it keeps its IOMMU group from being lent (vfio_dev_viable in the kernel).

        Bridges, driverless devices and those on pci-stub or a VFIO driver do not; everything else
        does, pciback and pci-pf-stub too.
        """
        if self.is_bridge or self.kernel_driver in {None, "pcieport", "pci-stub"}:
            return False
        return not is_vfio_driver(self.kernel_driver, self.is_vfio)


class PCIDetails(NamedTuple):
    """Details read only of a device that is about to be taken: these reads may wake or hang it.

    `power_state` is the kernel's, for a device whose configuration space reads all ones.
    """

    revision: str | None
    inode: int | None
    driver_override: str | None
    power_control: str | None
    header_type: int | None
    virtual_functions: tuple[str, ...]
    functions_below: tuple[str, ...]
    numvfs: int
    reset_methods: str | None
    power_state: str | None = None


def is_vfio_driver(kernel_driver: str | None, has_vfio_dev: bool = False) -> bool:
    """Whether a kernel driver is vfio-pci or one of its variants (mlx5-vfio-pci, ...).

    `has_vfio_dev`: its device has a VFIO device in sysfs, which shows it whatever the driver's name.
    """
    return has_vfio_dev or (kernel_driver is not None and kernel_driver[-8:] in _VFIO_PCI)


class USBDevice(NamedTuple):
    """A USB device that is there; root hubs, hubs and interfaces do not count.

    `bus` and `device` are numbers that change at a replug, `port` names the socket. `controller` is
    the PCI address of the controller, None for one that is not on PCI. `asked` is what a hostdev named
    it by, in an Assignment and for a backend's `arguments`; None elsewhere. `unread` says why `serial`
    and `label` are not known, where they were asked for and the device did not answer.
    """

    port: str
    bus: int = 0
    device: int = 0
    vendor: str = ""
    product: str = ""
    serial: str | None = None
    label: str = ""
    controller: str | None = None
    used_by: UsedBy | None = None
    phase: str | None = None
    stuck: str | None = None
    asked: USBSelector | None = None
    inode: int | None = None
    unread: str | None = None

    @property
    def kind(self) -> str:
        """The name of its bus in the ledger."""
        return "usb"

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.port

    @property
    def number(self) -> str:
        """Bus and device number, "001:020"."""
        return f"{self.bus:03}:{self.device:03}"

    @property
    def ids(self) -> str:
        """Vendor and product, "046d:c077"."""
        return f"{self.vendor}:{self.product}"

    @property
    def node(self) -> str:
        """Its node in /dev: "dev/bus/usb/001/020"."""
        return f"dev/bus/usb/{self.bus:03}/{self.device:03}"

    @property
    def identity(self) -> str:
        """The text by which a record recognises it: number, ids and serial."""
        return f"{self.number} {self.ids} {self.serial or ''}".rstrip()

    def matches(self, wanted: USBSelector) -> bool:
        """Whether all that is given is so."""
        mine = (self.port, self.bus, self.device, self.vendor, self.product, self.serial)
        return all(want is None or want == have for want, have in zip(wanted, mine, strict=True))


Device = PCIDevice | USBDevice
