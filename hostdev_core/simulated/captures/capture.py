"""Describe a machine, mostly a real one: the devices and drivers that `hostdev` looks at, nothing else.

Serial numbers and hardware addresses are left out unless they are asked for; names of the host and
of domains, and the owners of devices, always.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from hostdev_core.bus.pci import list_pci, read_override
from hostdev_core.bus.usb import HUB_CLASS, PORT, controller_of
from hostdev_core.errors import KernelError
from hostdev_core.host import Host
from hostdev_core.kernel.directory import Directory
from hostdev_core.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS, USB_DEVICES, Sysfs
from hostdev_core.model.device import PCIDevice
from hostdev_core.runtime.lanes import Lane, run_lanes
from hostdev_core.simulated.captures.document import Document, DriverEntry, PCIEntry, USBEntry

T = TypeVar("T")
PATIENCE = 2.0  # seconds for a read that waits for a device's lock
# The drivers that are described although no device is on them, and their modules.
STUBS: dict[str, str | None] = {
    "pcieport": None,
    "pci-pf-stub": "pci_pf_stub",
    "pci-stub": "pci_stub",
    "pciback": "xen_pciback",
    "vfio-pci": "vfio_pci",
}
_HARDWARE_ADDRESS = re.compile("[0-9a-f]{12}")  # enx0123456789ab: systemd.net-naming-scheme(7)
_VIRTIO = "1af4:"
_IDS = re.compile("([0-9a-f]{4}:[0-9a-f]{4})(?::.*)?")


def describe(host: Host, origin: str, *, serials: bool = False) -> Document:
    """Describe a machine; an attribute that the kernel does not answer within PATIENCE is left out.

    `unread` and `left_out` of the document give the reason for each that is missing. No sleeping device is
    woken up. A thread that the kernel keeps stays in this process.
    """
    devices = {device.name: device for device in list_pci(host.sysfs) if "?" not in device.ids}
    usb = _usb(host.sysfs, devices, serials=serials)
    locked, parents = _read_locked(host.sysfs, devices), _parents(host.sysfs, devices)
    pci = {
        name: _pci(
            host.sysfs, device, locked[name], parents[name], device.physfn in devices, serials
        )
        for name, device in devices.items()
    }
    return Document(
        kernel=host.kernel_release,
        origin=origin,
        dom0=host.is_dom0,
        pciback_slots=tuple((host.sysfs.read(f"{PCI_DRIVERS}/pciback/slots") or "").split()),
        drivers=_drivers(host, devices.values(), unread := list[str]()),
        pci=pci,
        usb=usb,
        left_out=(
            *_left_out(host.sysfs, devices, usb),
            *_unknown_drivers(host),
            *dict.fromkeys(unread),
        ),
    )


def _left_out(
    sysfs: Sysfs, devices: Mapping[str, PCIDevice], usb: Mapping[str, USBEntry]
) -> Iterable[str]:
    """Name each device that is still there and was not described, with the reason."""
    for name in sysfs.names(PCI_DEVICES):
        physfn = devices[name].physfn if name in devices else None
        if name not in devices:
            yield f"pci {name}: it tells neither modalias nor vendor, device and class"
        elif physfn is not None and physfn not in devices:
            yield f"pci {name}: that it is a virtual function of {physfn}, which is not described"
    for name in sysfs.names(USB_DEVICES):
        if PORT.fullmatch(name) and name not in usb:
            yield f"usb {name}: it tells no number, vendor or product"


def _unknown_drivers(host: Host) -> Iterable[str]:
    for name, module in STUBS.items():
        is_there = module is None or host.sysfs.exists(f"{PCI_DRIVERS}/{name}")
        try:
            found, reason = (True, "") if is_there or module is None else host.modules.find(module)
        except KernelError as error:
            found, reason = None, str(error)
        if found is None:
            yield f"driver {name}: whether the kernel has it cannot be known ({reason})"


def _ask_modules(ask: Callable[[], T], otherwise: T, unread: list[str]) -> T:
    """Call `ask`, which reads the modules' files; `otherwise` for a KernelError, which goes to `unread`."""
    try:
        return ask()
    except KernelError as error:
        unread.append(f"modules: {error}")
        return otherwise


def header_type(class_code: str) -> int:
    """Guess a function's header type by its class: PCI and CardBus bridges have headers of their own."""
    return {"0604": 1, "0607": 2}.get(class_code[:4], 0)


class Locked(NamedTuple):
    """The attributes whose read takes a device's lock, or may wait for the device."""

    override: str | None = None
    header_type: int | None = None
    unread: str | None = None


def _read_locked(sysfs: Sysfs, names: Iterable[str]) -> dict[str, Locked]:
    """Read them in a thread for each device: one that hangs keeps none of the others waiting."""

    def job(name: str) -> Callable[[Lane], Locked]:
        def read(lane: Lane) -> Locked:
            answer: list[Locked] = []
            path = f"{PCI_DEVICES}/{name}"
            lane.do(f"read {name}", path, PATIENCE, lambda: answer.append(_locked(sysfs, name)))
            return answer[0]

        return read

    report = run_lanes({name: job(name) for name in names})
    if report.interrupted is not None:  # a signal's, raised when the lanes were left in order
        raise report.interrupted
    for error in report.errors.values():
        if not isinstance(error, KernelError):
            raise error
    late = Locked(unread=f"driver_override: the kernel did not answer within {PATIENCE:g} s")
    failed = {name: Locked(unread=str(error)) for name, error in report.errors.items()}
    return {**report.results, **failed, **dict.fromkeys(report.late, late)}


def _locked(sysfs: Sysfs, name: str) -> Locked:
    path = f"{PCI_DEVICES}/{name}"
    override = read_override(sysfs, name)
    if (sysfs.read(f"{path}/power/runtime_status") or "").startswith("suspend"):
        return Locked(override)  # reading its config would wake it
    config = sysfs.read_bytes(f"{path}/config", 64) or b""
    return Locked(override, config[14] & 0x7F if len(config) > 14 else None)


def _pci(
    sysfs: Sysfs,
    device: PCIDevice,
    locked: Locked,
    parent: str | None,
    has_physfn: bool,
    serials: bool,
) -> PCIEntry:
    with sysfs.directory(f"{PCI_DEVICES}/{device.name}") as folder:
        read = folder.read if folder else _nothing
        usual = header_type(device.class_code)
        return PCIEntry(
            id=device.ids,
            class_=device.class_code,
            subsystem=device.subsystem_ids,
            revision=(read("revision") or "0x00").removeprefix("0x"),
            kernel_driver=device.kernel_driver,
            driver_override=locked.override,
            iommu_group=device.iommu_group,
            power_control=read("power/control") or "on",
            header_type=None if locked.header_type in {usual, None} else locked.header_type,
            resets=read("reset_method") or "",
            parent=parent,
            physfn=device.physfn if has_physfn else None,
            sriov_totalvfs=_number(read("sriov_totalvfs"), 0),
            net=tuple(_interfaces(sysfs, device, serials=serials)),
            numa_node=_number(read("numa_node"), -1),
            unread=locked.unread,
        )


def _nothing(name: str) -> None:
    """Read an attribute of a device that went away meanwhile: None."""


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.lstrip("-").isdecimal() else otherwise


def _parents(sysfs: Sysfs, names: Iterable[str]) -> dict[str, str | None]:
    """Find the bridge of each device: the last one that its path in sysfs leads through."""
    known = {*names}
    with sysfs.directory(PCI_DEVICES) as folder:
        paths = {name: folder.target(name) or "" if folder else "" for name in known}
    return {
        name: next((part for part in reversed(path.split("/")[:-1]) if part in known), None)
        for name, path in paths.items()
    }


def _interfaces(sysfs: Sysfs, device: PCIDevice, *, serials: bool) -> Iterable[str]:
    path = f"{PCI_DEVICES}/{device.name}"
    folders = [f"{path}/net"]
    if device.ids.startswith(_VIRTIO):  # its interfaces hang on a device of virtio's own bus
        inside = sysfs.names(path)
        folders += (f"{path}/{name}/net" for name in inside if name.startswith("virtio"))
    names = sorted(name for folder in folders for name in sysfs.names(folder))
    return (name for name in names if serials or not _HARDWARE_ADDRESS.search(name))


def _drivers(
    host: Host, devices: Collection[PCIDevice], unread: list[str]
) -> dict[str, DriverEntry]:
    """Describe the drivers of devices, the stubs and the VFIO variant drivers."""
    aliases = {device.modalias: device.ids for device in devices}
    variants = _ask_modules(lambda: _variants(host, aliases), dict[str, tuple[str, ...]](), unread)
    wanted = dict(STUBS)
    for module in variants:
        brought = host.modules.drivers(module)
        wanted[brought[0] if brought else module.replace("_", "-")] = module
    found = {d.kernel_driver: DriverEntry(host.modules.module_of(d.kernel_driver))
             for d in devices if d.kernel_driver is not None}  # fmt: skip
    for name, brings in wanted.items():
        if host.sysfs.exists(f"{PCI_DRIVERS}/{name}"):
            entry = DriverEntry(host.modules.module_of(name))
        elif brings is not None and _ask_modules(partial(_exists, host, brings), False, unread):
            entry = DriverEntry(brings, loaded=False)
        else:
            continue
        entry = entry._replace(variant_for=variants.get(brings or "", ()))
        found[name] = _ask_modules(partial(_configured, host, entry), entry, unread)
    return found


def _exists(host: Host, module: str) -> bool:
    return bool(host.modules.find(module)[0])


def _variants(host: Host, aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Find the VFIO variant drivers' modules, each with the ids of the devices that it is chosen for."""
    chosen: dict[str, set[str]] = {}
    for modalias, ids in aliases.items():
        module = host.modules.vfio_variant(modalias)
        if module is not None and module != STUBS["vfio-pci"]:
            chosen.setdefault(module, set()).add(ids)
    return {module: tuple(sorted(ids)) for module, ids in chosen.items()}


def _configured(host: Host, entry: DriverEntry) -> DriverEntry:
    """Add modprobe.d's options and blacklist of its module to a driver."""
    if entry.module is None:
        return entry
    words = host.modules.options(entry.module).split()
    texts = (text for word in words if word.startswith("ids=") for text in word[4:].split(","))
    matches = (_IDS.fullmatch(text.lower()) for text in texts)
    return entry._replace(
        blacklisted=host.modules.blacklisted(entry.module) is not None,
        option_ids=tuple(match[1] for match in matches if match),
    )


def _usb(sysfs: Sysfs, devices: Mapping[str, PCIDevice], *, serials: bool) -> dict[str, USBEntry]:
    found: dict[str, USBEntry] = {}
    with sysfs.directory(USB_DEVICES) as folder:
        names = folder.names() if folder else []
        for port in names:
            if folder is not None and PORT.fullmatch(port):
                inside = [name for name in names if name.startswith(f"{port}:")]
                entry = _usb_device(folder, port, inside, devices, serials=serials)
                if entry is not None:
                    found[port] = entry
    return found


def _usb_device(
    folder: Directory,
    port: str,
    inside: Iterable[str],
    devices: Mapping[str, PCIDevice],
    *,
    serials: bool,
) -> USBEntry | None:
    def read(name: str) -> str | None:
        return folder.read(f"{port}/{name}")

    device, vendor, product = _number(read("devnum"), 0), read("idVendor"), read("idProduct")
    if not device or not vendor or not product:
        return None  # it went away meanwhile
    bus = _number(read("busnum"), 0)
    controller = controller_of(folder.target(port) or "")
    return USBEntry(
        id=f"{vendor}:{product}",
        device=device,
        bus=None if bus == int(port.partition("-")[0]) else bus,
        product=read("product"),
        manufacturer=read("manufacturer"),
        serial=read("serial") if serials else None,
        controller=controller if controller in devices else None,
        interfaces={name.rpartition(":")[2]: folder.link(f"{name}/driver") for name in inside},
        hub=read("bDeviceClass") == HUB_CLASS,
    )
