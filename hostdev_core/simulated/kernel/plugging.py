"""Plug checked devices into a machine: with their driver, and the controller and hubs on the way."""

import re

from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated.kernel import checks, machine, pci, pciback, usb
from hostdev_core.simulated.kernel.device import find_device
from hostdev_core.simulated.kernel.driver_core import Core
from hostdev_core.simulated.kernel.drivers import Driver

DEFAULT_CONTROLLER = "0000:00:14.0"


def plug_card(core: Core, card: pci.Card, kernel_driver: str | None) -> None:
    """Plug a PCI function in, bound to its driver unless a slot of pciback seizes it."""
    card = card._replace(kernel_driver=kernel_driver)
    checks.check_card(card)
    driver = known_driver(core, kernel_driver, card.id) if kernel_driver else None
    device = pci.plug(core.disk, card)
    # pciback seizes a device whose slot is on its list.
    if card.address in pciback.slots(core.disk):
        driver = core.drivers.get(pciback.NAME)
    if driver:
        core.set_driver(device, driver)


def plug_usb(core: Core, plug: usb.Plug) -> None:
    """Plug a USB device in; a controller that is missing is an xHCI."""
    checks.check_plug(plug)
    if plug.controller != usb.PLATFORM and find_device(core.disk, plug.controller) is None:
        iommu = core.disk.recall(machine.MACHINE)["iommu"]
        card = pci.Card(plug.controller, "8086:a36d", "0c0330", "0000:0000", "00",
                        pci.OWN_GROUP if iommu else None, None, "on", 0, pci.RESET_METHODS,
                        None, 0, None, (), -1)  # fmt: skip
        plug_card(core, card, "xhci_hcd")
    usb.plug(core.disk, plug)


def controller_of(core: Core, bus: int, wanted: str | None) -> str:
    """Choose the controller of a bus: the wanted one, the one that it has, or the default one."""
    taken = {one.bus: one.controller for one in usb.plugged(core.disk).values()}
    name = wanted or taken.get(bus) or DEFAULT_CONTROLLER
    return name if name == usb.PLATFORM else str(PCIAddress.parse(name))


def known_driver(core: Core, name: str, id: str) -> Driver:
    """Return the driver for a device about to be plugged in; it is loaded, and added when unknown."""
    driver = core.drivers.get(name)
    if driver is None:
        checks.check_name("driver", name)
        module = re.sub(r"\W", "_", name, flags=re.A)
        machine.register(core, Driver(name, module, True, 0, ids=(id,)))
    elif not driver.loaded:
        machine.load_module(core, driver.module or name)
    elif driver.drives and id not in driver.ids:
        machine.register(core, driver._replace(ids=(*driver.ids, id)))
    known = core.drivers.get(name)
    assert known is not None, name
    return known
