"""A reboot: the kernel's memory is gone, and every device is as it was plugged in."""

import os
import time
import uuid

from hostdev_core.simulated.kernel import machine, pci, sriov, usb
from hostdev_core.simulated.kernel.device import find_device
from hostdev_core.simulated.kernel.disk import Disk, make, names, read, remove_tree
from hostdev_core.simulated.kernel.driver_core import Core
from hostdev_core.simulated.kernel.pci_domains import make_domain
from hostdev_core.simulated.kernel.plugging import known_driver

# Files and directories of the kernel's memory that do not outlive a boot.
_FORGOTTEN = ("faults", "crashed", "late", "released", "xenstore.json")
_MARKS = ("busy", "hanging", "open", "owned")


def reboot(core: Core) -> None:
    """Boot the machine anew; no process uses it meanwhile, as none outlives a reboot."""
    disk = core.disk
    _forget(disk)
    cards = _end_functions(core)
    for name in reversed(cards):  # devices behind a bridge before the bridge
        if device := find_device(disk, name):
            core.release_driver(device)
    usb.settle_buses(disk, usb.PLATFORM, present=False)
    # Each device gets the driver that it came with, not the first that matches.
    _set_autoprobe(disk, "0\n")
    _begin_modules(core)
    for name, card in cards.items():
        _begin_card(core, name, card)
    usb.settle_buses(disk, usb.PLATFORM, present=True)
    _set_autoprobe(disk, "1\n")
    _begin_time(disk)


def _forget(disk: Disk) -> None:
    """Delete the kernel's memory, xenstore's, and all of /run, with a ledger that lies there."""
    for name in _FORGOTTEN:
        remove_tree(f"{disk.memory}/{name}")
    for folder in _MARKS:
        for name in names(f"{disk.memory}/{folder}"):
            remove_tree(f"{disk.memory}/{folder}/{name}")
    for name in names(f"{disk.root}/run"):
        remove_tree(f"{disk.root}/run/{name}")


def _end_functions(core: Core) -> dict[str, pci.Card]:
    """Remove all virtual functions; return the other cards, each bridge before the cards behind it."""
    every = {name: _card(core, name) for name in names(f"{core.disk.sys}/bus/pci/devices")}
    cards = {name: card for name, card in every.items() if card.physfn is None}
    for name, card in cards.items():
        if card.sriov_totalvfs and (device := find_device(core.disk, name)):
            sriov.end_functions(core, device)
    return cards


def _card(core: Core, name: str) -> pci.Card:
    return pci.Card(**core.disk.recall(f"devices/{name}"))  # type: ignore[arg-type]


def _begin_modules(core: Core) -> None:
    """Load the modules of the boot, and no others."""
    for driver in core.drivers.loaded():
        if driver.module:
            machine.unload_module(core, driver.module)
    for driver in core.drivers.all().values():
        if driver.at_boot and driver.module:
            machine.load_module(core, driver.module)


def _begin_card(core: Core, name: str, card: pci.Card) -> None:
    device = find_device(core.disk, name)
    if device is None:  # of a domain that its driver has still to make
        return
    pci.write_settings(core.disk, device, card)
    if card.kernel_driver:
        core.set_driver(device, known_driver(core, card.kernel_driver, card.id))
        make_domain(core.disk, device)


def _set_autoprobe(disk: Disk, value: str) -> None:
    disk.put(f"{disk.sys}/bus/pci/drivers_autoprobe", value)


def _begin_time(disk: Disk) -> None:
    """Write a new boot_id (random(4)), and now as btime (proc_stat(5))."""
    folder = f"{disk.root}/proc/sys/kernel/random"
    os.makedirs(folder, exist_ok=True)
    disk.put(f"{folder}/boot_id", f"{uuid.uuid4()}\n")
    path = f"{disk.root}/proc/stat"
    if read(path) is None:
        make(path, "")
    lines = [line for line in (read(path) or "").splitlines() if not line.startswith("btime ")]
    disk.put(path, "".join(f"{line}\n" for line in (*lines, f"btime {int(time.time())}")))
