"""PCI devices as sysfs shows them."""

import re
from typing import NamedTuple

from hostdev_core.address import PCIAddress
from hostdev_core.directory import Directory
from hostdev_core.errors import DeviceNotFoundError, InvalidAddressError, KernelError
from hostdev_core.owner import UsedBy
from hostdev_core.sysfs import PCI_DEVICES, Sysfs

_MODALIAS = re.compile(
    "pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})sv0000([0-9A-F]{4})sd0000([0-9A-F]{4})"
    "bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-F]{2})"
)
# The header type of a configuration space that reads all ones, without its multi-function bit. A virtual
# function's vendor id reads ffff although it answers, so that tells nothing (PCIe 4.0, 9.3.4.1.1).
NO_ANSWER = 0x7F
_HEX = re.compile("0x([0-9a-fA-F]+)")
_DIGITS = re.compile("[0-9]+")
_HOST_BRIDGE = re.compile("pci[0-9a-f]{4,8}:[0-9a-f]{2}")
_FUNCTION = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_UNKNOWN = ("????", "????", "????", "????", "??", "??", "??")


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
        """What names its kind in the ledger."""
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
        return self.class_code.startswith("0604")

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
        match = _MODALIAS.match(self.modalias)
        return match.groups() if match else _UNKNOWN

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
    """What is read only of a device that is about to be taken: these reads may wake or hang it.

    `power_state` is what the kernel says of one whose configuration space reads all ones.
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
    return has_vfio_dev or (kernel_driver or "").replace("_", "-").endswith("vfio-pci")


def list_pci(sysfs: Sysfs, *, tolerant: bool = False) -> list[PCIDevice]:
    """All PCI devices, by address. Reads neither `config` nor anything under a device's lock.

    KernelError where one cannot be seen; with `tolerant` it is listed with the reason (`unread`).
    """
    found: list[PCIDevice] = []
    with sysfs.directory(PCI_DEVICES) as devices:
        if not tolerant:
            sysfs.check_bus(PCI_DEVICES)
        for name in devices.names() if devices else ():
            try:
                address = PCIAddress.parse(name)
            except InvalidAddressError:
                continue
            assert devices is not None
            try:
                found.append(_list_one(devices, name, address))
            except KernelError as error:
                if not tolerant:
                    raise
                found.append(PCIDevice(address, unread=str(error)))
    found.sort()
    return found


def _list_one(devices: Directory, name: str, address: PCIAddress) -> PCIDevice:
    modalias = _modalias(devices, f"{name}/")
    if not modalias:
        devices.inode(name)  # KernelError where it is hidden
    return PCIDevice(
        address,
        modalias,
        devices.link(f"{name}/driver"),
        _number(devices.link(f"{name}/iommu_group")),
        devices.link(f"{name}/physfn"),
    )


def read_pci(sysfs: Sysfs, address: PCIAddress) -> PCIDevice:
    """One PCI device; DeviceNotFoundError when there is none."""
    with sysfs.directory(f"{PCI_DEVICES}/{address}") as directory:
        modalias = "" if directory is None else _modalias(directory)
        if not modalias:
            sysfs.inode(f"{PCI_DEVICES}/{address}")  # KernelError where it is hidden
        if directory is None:
            sysfs.check_seen(PCI_DEVICES)
            raise DeviceNotFoundError(
                f"there is no PCI device {address}; `hostdev list` shows those there are",
                device=str(address),
                rule="unknown-device",
            )
        return PCIDevice(
            address,
            modalias,
            directory.link("driver"),
            _number(directory.link("iommu_group")),
            directory.link("physfn"),
            sysfs.exists(f"{PCI_DEVICES}/{address}/vfio-dev"),
        )


def see_vfio(sysfs: Sysfs, device: PCIDevice) -> PCIDevice:
    """A listed device, with whether it has a VFIO device: a listing does not look."""
    return device._replace(is_vfio=sysfs.exists(f"{PCI_DEVICES}/{device.address}/vfio-dev"))


def _modalias(folder: Directory, prefix: str = "") -> str:
    """A device's modalias; one of the same form where the kernel's is not of it, or missing.

    Kernels before 3.19 wrote the interface in small letters. All ids are attributes, too, which are
    read without any lock; what they do not tell either stays unknown.
    """
    text = folder.read(f"{prefix}modalias") or ""
    if _MODALIAS.match(text):
        return text
    ids = [_hex(folder.read(f"{prefix}{name}"), 4) for name in ("vendor", "device")]
    class_ = _hex(folder.read(f"{prefix}class"), 6)
    if class_ is None or None in ids:
        return text
    for name in ("subsystem_vendor", "subsystem_device"):
        ids.append(_hex(folder.read(f"{prefix}{name}"), 4) or "0000")
    vendor, device, subvendor, subdevice = ids
    numbers = f"v0000{vendor}d0000{device}sv0000{subvendor}sd0000{subdevice}"
    return f"pci:{numbers}bc{class_[:2]}sc{class_[2:4]}i{class_[4:]}"


def _hex(text: str | None, digits: int) -> str | None:
    """The digits of a number like 0x8086, in capital letters; None for anything else."""
    found = _HEX.fullmatch(text or "")
    return found[1].upper() if found and len(found[1]) == digits else None


def read_details(sysfs: Sysfs, address: PCIAddress) -> PCIDetails:
    """Read what may wake or hang the device; call it under a deadline."""
    path = f"{PCI_DEVICES}/{address}"
    config = sysfs.read_bytes(f"{path}/config", 64) or b""
    header_type = config[14] & 0x7F if len(config) > 14 else None
    return PCIDetails(
        revision=sysfs.read(f"{path}/revision"),
        inode=sysfs.inode(path),
        driver_override=read_override(sysfs, str(address)),
        power_control=sysfs.read(f"{path}/power/control"),
        header_type=header_type,
        virtual_functions=virtual_functions(sysfs, str(address)),
        functions_below=functions_below(sysfs, str(address)),
        numvfs=_number(sysfs.read(f"{path}/sriov_numvfs")) or 0,
        reset_methods=sysfs.read(f"{path}/reset_method"),
        power_state=sysfs.glance(f"{path}/power_state") if header_type == NO_ANSWER else None,
    )


def read_override(sysfs: Sysfs, address: str) -> str | None:
    """The text of driver_override; None when unset, which the kernel shows as "(null)"."""
    text = sysfs.read(f"{PCI_DEVICES}/{address}/driver_override")
    return None if text in {None, "", "(null)"} else text


def read_driver(sysfs: Sysfs, address: str) -> str | None:
    """The kernel driver a PCI device is bound to; None without one."""
    return sysfs.link(f"{PCI_DEVICES}/{address}/driver")


def read_group(sysfs: Sysfs, address: str) -> int | None:
    """The IOMMU group of a PCI device; None without one."""
    return _number(sysfs.link(f"{PCI_DEVICES}/{address}/iommu_group"))


def virtual_functions(sysfs: Sysfs, address: str) -> tuple[str, ...]:
    """The addresses of a PF's virtual functions that are there."""
    path = f"{PCI_DEVICES}/{address}"
    links = (
        sysfs.link(f"{path}/{name}") for name in sysfs.names(path) if name.startswith("virtfn")
    )
    return tuple(sorted(link for link in links if link))


def functions_below(sysfs: Sysfs, address: str) -> tuple[str, ...]:
    """The PCI functions of a domain that a device's driver makes, and takes away when it is unbound.

    Those of a Volume Management Device (drivers/pci/controller/vmd.c), for instance; not of a bridge.
    """
    path = f"{PCI_DEVICES}/{address}"
    found: list[str] = []
    waiting = [f"{path}/{name}" for name in sysfs.folders(path) if _HOST_BRIDGE.fullmatch(name)]
    while waiting:
        path = waiting.pop()
        functions = [name for name in sysfs.folders(path) if _FUNCTION.fullmatch(name)]
        found += functions
        waiting += (f"{path}/{name}" for name in functions)
    return tuple(sorted(found))


def _number(text: str | None) -> int | None:
    """A number below 2**31, as the kernel's; None for anything else."""
    return int(text) if text is not None and len(text) < 10 and _DIGITS.fullmatch(text) else None
