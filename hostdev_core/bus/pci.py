"""PCI devices as sysfs shows them."""

import re
from functools import lru_cache

from hostdev_core.bus.bus import PATIENCE, Bus, Scope
from hostdev_core.errors import DeviceNotFoundError, InvalidAddressError, KernelError
from hostdev_core.kernel.directory import Directory
from hostdev_core.kernel.sysfs import IOMMU_GROUPS, PCI_DEVICES, Sysfs
from hostdev_core.model.address import PCIAddress, known_address
from hostdev_core.model.device import NO_ANSWER, PCI_MODALIAS, PCIDetails, PCIDevice, is_vfio_driver
from hostdev_core.model.near import Near

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from hostdev_core.model.device import Device
    from hostdev_core.model.domain import PCIHostdev
    from hostdev_core.model.record import Record

# The one form of an address: str(PCIAddress.parse(name)) == name.
_CANONICAL = re.compile(r"(?:[0-9a-f]{4}|[1-9a-f][0-9a-f]{4,7}):[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_HEX = re.compile("0x([0-9a-fA-F]+)")
_DIGITS = re.compile("[0-9]+")
_HOST_BRIDGE = re.compile("pci[0-9a-f]{4,8}:[0-9a-f]{2}")
_MADE = re.compile(r"/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/pci[0-9a-f]{5,8}:[0-9a-f]{2}/")
_FUNCTION = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def list_pci(sysfs: Sysfs, *, tolerant: bool = False) -> list[PCIDevice]:
    """All PCI devices, by address, as `see_pci` sees them."""
    return [*see_pci(sysfs, tolerant=tolerant).values()]


def see_pci(sysfs: Sysfs, *, tolerant: bool = False) -> "dict[str, PCIDevice]":
    """All PCI devices, in the order of their addresses; no `config` is read, and nothing under a lock.

    KernelError where one cannot be seen; with `tolerant` it is listed with the reason (`unread`).
    """
    found: dict[str, PCIDevice] = {}
    with sysfs.directory(PCI_DEVICES) as devices:
        if not tolerant:
            sysfs.check_bus(PCI_DEVICES)
        for name in devices.names() if devices else ():
            try:
                address = known_address(name)
            except InvalidAddressError:
                continue
            assert devices is not None
            try:
                found[name] = _list_one(devices, name, address)
            except KernelError as error:
                if not tolerant:
                    raise
                found[name] = PCIDevice(address, unread=str(error))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _list_one(devices: Directory, name: str, address: PCIAddress) -> PCIDevice:
    modalias = _modalias(devices, f"{name}/")
    if not modalias:
        devices.inode(name)  # KernelError where it is hidden
    driver, group, physfn = devices.links(name, "driver", "iommu_group", "physfn")
    return PCIDevice(address, modalias, driver, _number(group), physfn)


def read_pci(sysfs: Sysfs, address: PCIAddress) -> PCIDevice:
    """One PCI device; DeviceNotFoundError when there is none."""
    name = str(address)
    path = f"{PCI_DEVICES}/{name}"
    with sysfs.directory(path) as directory:
        modalias = "" if directory is None else _modalias(directory)
        if not modalias:
            sysfs.inode(path)  # KernelError where it is hidden
        if directory is None:
            sysfs.check_seen(PCI_DEVICES)
            from hostdev_core.bus.unknown import no_such_device  # here: for an error only

            raise no_such_device("PCI device", name)
        driver, group, physfn = directory.links("", "driver", "iommu_group", "physfn")
        has_vfio = sysfs.exists(f"{path}/vfio-dev")
        return PCIDevice(address, modalias, driver, _number(group), physfn, has_vfio)


def _modalias(folder: Directory, prefix: str = "") -> str:
    """A device's modalias; one of the same form where the kernel's is not of it, or missing.

    Kernels before 3.19 wrote the interface in small letters. All ids are attributes, too, which are
    read without any lock; what they do not tell either stays unknown.
    """
    text = folder.read(f"{prefix}modalias") or ""
    if PCI_MODALIAS.match(text):
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
    """Read the attributes that may wake or hang the device; call it under a deadline."""
    name = str(address)
    path = f"{PCI_DEVICES}/{name}"
    inode = sysfs.inode(path)
    config = sysfs.read_bytes(f"{path}/config", 64) or b""
    header_type = config[14] & 0x7F if len(config) > 14 else None
    revision, power, resets = sysfs.read_each(path, "revision", "power/control", "reset_method")
    numvfs, functions, below = read_functions(sysfs, name)
    return PCIDetails(
        revision=revision,
        inode=inode,
        driver_override=read_override(sysfs, name),
        power_control=power,
        header_type=header_type,
        virtual_functions=functions,
        functions_below=below,
        numvfs=numvfs,
        reset_methods=resets,
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


def read_place(sysfs: Sysfs, address: str) -> tuple[int | None, str | None]:
    """The IOMMU group of a PCI device and its PF, which it has as long as it is there; None without."""
    return read_group(sysfs, address), sysfs.link(f"{PCI_DEVICES}/{address}/physfn")


def group_members(sysfs: Sysfs, group: int) -> list[str]:
    """The names of all members of an IOMMU group, those of other buses, too."""
    return sysfs.names(f"{IOMMU_GROUPS}/{group}/devices")


def read_functions(sysfs: Sysfs, address: str) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """A PF's sriov_numvfs, its virtual functions that are there, and the `functions_below` a device.

    The first waits for the device's lock.
    """
    path = f"{PCI_DEVICES}/{address}"
    numvfs = _number(sysfs.read(f"{path}/sriov_numvfs")) or 0
    names = sysfs.names(path)
    below = functions_below(sysfs, address) if any(map(_HOST_BRIDGE.fullmatch, names)) else ()
    return numvfs, virtual_functions(sysfs, address, names), below


def virtual_functions(
    sysfs: Sysfs, address: str, names: "Iterable[str] | None" = None
) -> tuple[str, ...]:
    """The addresses of a PF's virtual functions that are there; `names` are those in its directory."""
    path = f"{PCI_DEVICES}/{address}"
    known = sysfs.names(path) if names is None else names
    found = [name for name in known if name[:6] == "virtfn"]
    return tuple(sorted(filter(None, [sysfs.link(f"{path}/{name}") for name in found])))


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


@lru_cache(maxsize=4096)  # of texts: the same for every host
def _number(text: str | None) -> int | None:
    """A number below 2**31, as the kernel's; None for anything else."""
    return int(text) if text is not None and len(text) < 10 and _DIGITS.fullmatch(text) else None


def find_maker(sysfs: Sysfs, address: str) -> str | None:
    """The function whose driver has made the domain that this one is in (drivers/pci/controller/vmd.c)."""
    found = _MADE.findall(sysfs.real_path(f"{PCI_DEVICES}/{address}") or "")
    return found[-1] if found else None


class PCI(Bus):
    """The PCI bus: a device is lent on a stub driver, with its IOMMU group."""

    kind = "pci"
    folder = PCI_DEVICES
    has_steps = True

    def devices(self, *, tolerant: bool = False) -> "Mapping[str, Device]":
        return see_pci(self.sysfs, tolerant=tolerant)

    def scope(self, hostdevs: "Sequence[PCIHostdev]") -> Scope:
        """The devices that are named, the other members of their IOMMU groups, and their PFs."""
        names = [str(hostdev.address) for hostdev in hostdevs]
        places = [read_place(self.sysfs, name) for name in names]
        groups = frozenset([group for group, _ in places if group is not None])
        related = {*filter(_CANONICAL.fullmatch, [pf for _, pf in places if pf is not None])}
        for group in groups:
            known = {name for name, place in zip(names, places, strict=True) if place[0] == group}
            related.update(self.members(group, known, group_members(self.sysfs, group)))
        return Scope(Near(frozenset(names), frozenset(related), groups), [*{*names, *related}])

    def members(self, group: int, known: "set[str]", listed: "Iterable[str]") -> "Iterable[str]":
        """The names of a group's PCI devices; `known` are some of them, `listed` what its directory lists."""
        members = {*filter(_CANONICAL.fullmatch, listed)}
        if known <= members:
            return members
        # Something hides the group's directory, or a part of it: each device tells its group, too.
        return [name for name, device in see_pci(self.sysfs).items() if device.iommu_group == group]

    def see(self, scope: Scope) -> "Mapping[str, Device]":
        found = [(self.read(name), name) for name in scope.names]
        present = [(device, name) for device, name in found if device is not None]
        return {name: device for device, name in sorted(present)}  # by their addresses

    def read(self, name: str) -> PCIDevice | None:
        try:
            return read_pci(self.sysfs, known_address(name))
        except DeviceNotFoundError:
            return None

    def absent(self, name: str) -> PCIDevice:
        return PCIDevice(known_address(name))

    def parse(self, text: str) -> str | None:
        try:
            return str(PCIAddress.parse(text))
        except InvalidAddressError:
            return None

    def is_name(self, name: str) -> bool:
        return _CANONICAL.fullmatch(name) is not None

    def identify(self, record: "Record", now: "Device | None", seconds: float = PATIENCE) -> str:
        """By its directory; a device that a tolerant look could not read counts as there."""
        del seconds
        if now is not None and now.unread is not None:
            return "there"
        return self.locate(record)

    def is_bound(self, record: "Record") -> bool:
        if record.stub is None or record.op is not None or record.stuck:
            return False
        path = self.path(record.address)
        try:
            self.check_seen()
            same = record.inode in {None, self.sysfs.inode(path)}
            return same and self.sysfs.link(f"{path}/driver") == record.stub
        except KernelError:
            return True

    def place(self, device: PCIDevice) -> "dict[str, Any]":
        return {"group": device.iommu_group, "physfn": device.physfn}

    def node(self, device: PCIDevice) -> str | None:
        """The VFIO node of its IOMMU group; None when it is on no VFIO driver."""
        if device.iommu_group is not None and is_vfio_driver(device.kernel_driver, device.is_vfio):
            from hostdev_core.kernel.vfio import group_node  # here: a listing needs none of it

            return group_node(self.sysfs, device.iommu_group)
        return None

    def lent(self, device: PCIDevice, hostdev: object) -> PCIDevice:
        """See on which driver it is now, and which group VFIO may have made for it."""
        path = self.path(device.name)
        return device._replace(
            kernel_driver=self.sysfs.link(f"{path}/driver"),
            iommu_group=_number(self.sysfs.link(f"{path}/iommu_group")),
            is_vfio=self.sysfs.exists(f"{path}/vfio-dev"),
        )
