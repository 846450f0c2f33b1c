"""Replay: make a simulated machine from a document."""

import errno
import os
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter

from hostdev_core.errors import InputError
from hostdev_core.model.address import PCIAddress, quoted
from hostdev_core.model.device import is_vfio_driver
from hostdev_core.simulated.captures.capture import header_type
from hostdev_core.simulated.captures.document import (
    MAX_BYTES,
    Document,
    DriverEntry,
    PCIEntry,
    USBEntry,
    parse_document,
    within,
)
from hostdev_core.simulated.kernel import checks, machine, pciback, plugging
from hostdev_core.simulated.kernel.disk import Disk, names, read_bytes, remove_tree
from hostdev_core.simulated.kernel.driver_core import Core
from hostdev_core.simulated.kernel.drivers import STUBS, Driver
from hostdev_core.simulated.kernel.pci import Card
from hostdev_core.simulated.kernel.usb import PLATFORM, Plug


def replay(path: str, directory: str | os.PathLike[str] | None) -> str:
    """Make the machine of a file in a directory that is not there or empty; return the directory.

    InputError for a file that does not describe one; the directory is then as it was.
    """
    with _making(directory) as root, within(path):
        document = parse_document(_read(path))
        checks.check_form("kernel", document.kernel, checks.RELEASE, "6.1.0-18-amd64")
        drivers, cards, plugs = _drivers(document), _cards(document), _plugs(document)
        _check_together(document, cards, plugs)
        iommu = any(card.iommu_group is not None for card in cards.values())
        machine.make_machine(root, drivers, document.kernel, dom0=document.dom0, iommu=iommu)
        _fill(Core(Disk(root)), document, cards, plugs)
    return root


@contextmanager
def _making(directory: str | os.PathLike[str] | None) -> Generator[str, None, None]:
    """Yield the directory to make a machine in; when that fails, leave it as it was."""
    root = os.path.abspath(tempfile.mkdtemp(prefix="hostdev-") if directory is None else directory)
    machine.check_empty(root)
    lasting = directory is not None and os.path.isdir(root)
    try:
        yield root
    except BaseException:
        for name in names(root):
            remove_tree(os.path.join(root, name))
        if not lasting and os.path.isdir(root):
            os.rmdir(root)
        raise


def _read(path: str) -> bytes:
    try:
        data = read_bytes(path, MAX_BYTES + 1)  # one more: a longer file is refused, not cut
    except InputError:
        raise InputError("it is no regular file; wanted a file of `hostdev capture`") from None
    except OSError as error:
        raise InputError(f"{error.strerror}; wanted a file of `hostdev capture`") from error
    if data is None:
        raise InputError(f"{os.strerror(errno.ENOENT)}; wanted a file of `hostdev capture`")
    return data


def _fill(
    core: Core, document: Document, cards: Mapping[str, Card], plugs: Mapping[str, Plug]
) -> None:
    for name, entry in document.drivers.items():
        with within("drivers", name):
            _configure(core.disk, entry)
    for address in _in_order(cards):
        with within("pci", address):
            plugging.plug_card(core, cards[address], document.pci[address].kernel_driver)
    # By the number of hubs on the way: a missing hub would be made up by plug_usb().
    for port, plug in sorted(plugs.items(), key=lambda item: (item[0].count("."), item[0])):
        with within("usb", port):
            plugging.plug_usb(core, plug)
    # Last: a slot would have seized a device that the document has on another driver.
    if core.drivers.all().get(pciback.NAME) in core.drivers.loaded():
        pciback.set_slots(core.disk, document.pciback_slots)


def _configure(disk: Disk, entry: DriverEntry) -> None:
    if entry.module is None:
        if entry.blacklisted or entry.option_ids:
            raise InputError("it has no module that modprobe.d could say something about")
        return
    if entry.blacklisted:
        machine.blacklist(disk, entry.module)
    if entry.option_ids:
        machine.set_option_ids(disk, entry.module, entry.option_ids)


def _in_order(cards: Mapping[str, Card]) -> Iterable[str]:
    """Order the addresses: each after its bridge and its physical function, which must be there first."""
    graph = {
        name: [other for other in (card.parent, card.physfn) if other is not None]
        for name, card in sorted(cards.items(), key=lambda item: PCIAddress.parse(item[0]))
    }
    try:
        return [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise InputError(f"pci {error.args[1][0]}: it hangs on itself") from None


def _drivers(document: Document) -> list[Driver]:
    ids: dict[str, set[str]] = {}
    for device in document.pci.values():
        ids.setdefault(device.kernel_driver or "", set()).add(device.id.lower())
    drivers: list[Driver] = []
    for name, entry in document.drivers.items():
        with within("drivers", name):
            drivers.append(_driver(name, entry, ids.get(name, set())))
    return drivers


def _driver(name: str, entry: DriverEntry, bound: set[str]) -> Driver:
    # The kernel's own drivers keep their behaviour; the document says which module has them.
    own = {driver.name: driver for driver in machine.OWN}
    if name in own:
        driver = own[name]._replace(module=entry.module, loaded=entry.loaded)
    elif entry.variant_for or is_vfio_driver(name):
        driver = Driver(name, entry.module, entry.loaded, 0, tuple(entry.variant_for),
                        override_only=True, vfio=True, managed_dma=True)  # fmt: skip
    else:
        driver = Driver(name, entry.module, entry.loaded, 0, tuple(sorted(bound)))
    checks.check_driver(driver)
    checks.check_ids(entry.option_ids)
    if not entry.loaded and entry.module is None:
        raise InputError("it is built in and not loaded; wanted a module")
    return driver


def _cards(document: Document) -> dict[str, Card]:
    cards: dict[str, Card] = {}
    for address, entry in document.pci.items():
        with within("pci", address):
            cards[address] = _card(address, entry)
    return cards


def _card(address: str, entry: PCIEntry) -> Card:
    parsed = PCIAddress.parse(address)
    if str(parsed) != address:
        raise InputError(f"the address is not as the kernel writes it; wanted {parsed}")
    usual = header_type(entry.class_)
    card = Card(
        address=address,
        id=entry.id.lower(),
        class_=entry.class_.lower(),
        subsystem=entry.subsystem.lower(),
        revision=entry.revision.lower(),
        iommu_group=entry.iommu_group,
        driver_override=entry.driver_override,
        power_control=entry.power_control,
        header_type=usual if entry.header_type is None else entry.header_type,
        resets=entry.resets,
        parent=entry.parent,
        sriov_totalvfs=entry.sriov_totalvfs,
        physfn=entry.physfn,
        net=entry.net,
        numa_node=entry.numa_node,
    )
    if entry.iommu_group is not None and entry.iommu_group < 0:
        raise InputError(
            f"iommu_group {entry.iommu_group} is none; leave it out where there is none"
        )
    checks.check_card(card)
    return card


def _plugs(document: Document) -> dict[str, Plug]:
    plugs: dict[str, Plug] = {}
    for port, entry in document.usb.items():
        with within("usb", port):
            plugs[port] = _plug(port, entry)
    return plugs


def _plug(port: str, entry: USBEntry) -> Plug:
    bus = port.partition("-")[0]
    plug = Plug(
        port=port,
        id=entry.id.lower(),
        bus=entry.bus if entry.bus is not None else int(bus) if bus.isdecimal() else 0,
        device=entry.device,
        serial=entry.serial,
        product=entry.product,
        manufacturer=entry.manufacturer,
        controller=entry.controller or PLATFORM,
        interfaces=entry.interfaces,
        hub=entry.hub,
    )
    checks.check_plug(plug)
    return plug


def _check_together(
    document: Document, cards: Mapping[str, Card], plugs: Mapping[str, Plug]
) -> None:
    """Check that each device, driver and controller that an entry names is in the document too."""
    interfaces: set[str] = set()  # a name stands for one interface of the machine
    for address, card in cards.items():
        with within("pci", address):
            for other in (card.parent, card.physfn):
                if other is not None and other not in cards:
                    raise InputError(f"{other}, which it hangs on, is not in the file")
            _check_bound(document.drivers, document.pci[address].kernel_driver)
            _check_vfio(document.pci[address].kernel_driver, card)
            for name in card.net:
                if name in interfaces:
                    raise InputError(f"network interface {quoted(name)} is there already")
                interfaces.add(name)
    for port, plug in plugs.items():
        with within("usb", port):
            _check_controller(document, plug)
    for slot in document.pciback_slots:
        with within("pciback_slots"):
            PCIAddress.parse(slot)


def _check_bound(drivers: Mapping[str, DriverEntry], name: str | None) -> None:
    if name is not None and (name not in drivers or not drivers[name].loaded):
        raise InputError(f"it is on {name!r}, which is not among the loaded drivers of the file")


def _check_vfio(name: str | None, card: Card) -> None:
    """Refuse a VFIO driver without an IOMMU group, or of a bridge: the device could not be bound again."""
    if is_vfio_driver(name) and (card.iommu_group is None or card.header_type != 0):
        what = "in no IOMMU group" if card.iommu_group is None else "a bridge"
        raise InputError(f"it is on {name!r} and {what}, which VFIO does not bind")


def _check_controller(document: Document, plug: Plug) -> None:
    """Refuse a USB device whose controller has no host driver, and number 1, which is the root hub's."""
    if plug.device == 1:
        raise InputError("device 1 of a bus is its root hub; wanted 2 or more")
    if plug.controller == PLATFORM:
        return
    controller = document.pci.get(plug.controller)
    if controller is None:
        raise InputError(f"its controller {plug.controller} is not in the file")
    name = controller.kernel_driver
    if name is None or name in STUBS or is_vfio_driver(name):
        raise InputError(
            f"its controller {plug.controller} is on {name or 'no driver'}, where no USB device is seen"
        )
