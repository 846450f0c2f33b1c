"""A machine before anything is plugged in: folders, buses, the drivers of a Debian kernel."""

import os
from collections.abc import Iterable
from contextlib import suppress

from hostdev_core.errors import InputError
from hostdev_core.simulated.kernel import pciback
from hostdev_core.simulated.kernel.disk import Disk, link, make, names, read
from hostdev_core.simulated.kernel.driver_core import Core
from hostdev_core.simulated.kernel.drivers import ANY, Driver, Ids
from hostdev_core.simulated.kernel.events import events_file
from hostdev_core.simulated.kernel.locks import locked

RELEASE = "6.1.0-simulated"
MACHINE = "machine"
_FOLDERS = (
    "dev/bus/usb", "dev/vfio", "etc/modprobe.d", "lib/modules", "proc/self", "proc/xen", "run",
    "sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/bus/usb/devices", "sys/bus/usb/drivers",
    "sys/class/net", "sys/class/vfio", "sys/class/vfio-dev", "sys/devices",
    "sys/kernel/iommu_groups", "sys/module",
    *(f".kernel/{name}" for name in
      ("busy", "devices", "graveyard", "hanging", "open", "owned", "tmp")),
)  # fmt: skip
_MOUNTS = """\
1 1 0:2 / / rw - rootfs rootfs rw
21 1 0:20 / /sys rw,nosuid,nodev,noexec,relatime - sysfs sysfs rw
22 1 0:21 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
23 1 0:5 / /dev rw,nosuid,relatime - devtmpfs udev rw,mode=755
"""
# drivers/pci/pcie/portdrv.c: by class.
BRIDGES = Ids(ANY, ANY, class_=0x060400, class_mask=0xFFFFFF)
# The drivers that a Debian kernel has without any device.
OWN = (
    Driver("pcieport", None, True, 0, dynamic_ids=(BRIDGES,), managed_dma=True),
    Driver(pciback.NAME, "xen_pciback", False, 0, ids=("*:*",)),
    Driver("vfio-pci", "vfio_pci", False, 0, ids=("*:*",),
           override_only=True, vfio=True, managed_dma=True),
    Driver("pci-stub", "pci_stub", False, 0, managed_dma=True),
)  # fmt: skip


def make_machine(
    root: str, drivers: Iterable[Driver], release: str, *, dom0: bool, iommu: bool
) -> None:
    """Make the folders and files of a machine; the directory is empty or not there."""
    disk = Disk(root)
    for name in (*_FOLDERS, f"lib/modules/{release}"):
        os.makedirs(os.path.join(disk.root, name))
    make(f"{disk.root}/dev/vfio/vfio", "")
    os.chmod(f"{disk.root}/dev/vfio/vfio", 0o666)  # whatever the umask
    make(f"{disk.root}/proc/self/mountinfo", _MOUNTS, 0o644)
    if dom0:
        make(f"{disk.root}/proc/xen/capabilities", "control_d\n", 0o444)
    make(f"{disk.sys}/bus/pci/drivers_probe", "", 0o200)
    make(f"{disk.sys}/bus/pci/drivers_autoprobe", "1\n", 0o644)
    make(events_file(disk), "", 0o600)
    disk.remember(MACHINE, {"dom0": dom0, "iommu": iommu and not dom0, "release": release})
    core = Core(disk)
    for driver in drivers:
        register(core, driver)


def check_machine(root: str) -> None:
    """Raise InputError unless a machine was made in this directory."""
    if not os.path.exists(f"{Disk(root).memory}/{MACHINE}"):
        raise InputError(
            f"{root} is no simulated host; make one with `hostdev replay` or SimulatedHost.create"
        )


def check_empty(root: str) -> None:
    """Raise InputError unless a machine may be made in this directory."""
    if os.path.lexists(root) and not (os.path.isdir(root) and not os.listdir(root)):
        raise InputError(f"{root} is there already and not an empty directory")


def release_of(disk: Disk) -> str:
    """Read the release of the machine's kernel; InputError where an older hostdev made the machine."""
    release = disk.recall(MACHINE).get("release")
    if not isinstance(release, str):
        raise InputError(
            f"{disk.root} was made by an older hostdev and names no kernel release; make the"
            " simulated host anew"
        )
    return release


def blacklist(disk: Disk, module: str) -> None:
    """Let modprobe.d say that a module is not to be loaded."""
    disk.put(f"{disk.root}/etc/modprobe.d/blacklist-{module}.conf", f"blacklist {module}\n")


def set_option_ids(disk: Disk, module: str, ids: Iterable[str]) -> None:
    """Let modprobe.d give a module the option `ids=`."""
    text = f"options {module} ids={','.join(ids)}\n"
    disk.put(f"{disk.root}/etc/modprobe.d/options-{module}.conf", text)


def register(core: Core, driver: Driver) -> None:
    """Add a driver to the table or change it; one that is loaded tries all devices."""
    with core.disk.kernel_lock():
        table = core.drivers.all()
        old = table.get(driver.name)
        order = old.order if old else len(table)
        dynamic_ids, at_boot = (old or driver).dynamic_ids, (old.at_boot if old else driver.loaded)
        driver = driver._replace(order=order, dynamic_ids=dynamic_ids, at_boot=at_boot)
        core.drivers.save([driver])
        write_module_lists(core)
    if driver.loaded:
        _appear(core, driver)


def load_module(core: Core, module: str, options: str = "") -> None:
    """Load a module's drivers, with the ids that its options name.

    A second load of it waits until the first has tried all devices, as in finit_module(2).
    """
    with locked(f"{core.disk.memory}/loading"):
        _load_module(core, module, _option_ids(options))


def _load_module(core: Core, module: str, ids: Iterable[Ids]) -> None:
    with core.disk.kernel_lock():
        table = core.drivers.all()
        new = [d for d in table.values() if d.module == module and not d.loaded]
        first = max(driver.order for driver in table.values()) + 1  # the last loaded tries last
        new = [
            d._replace(loaded=True, order=first + number, dynamic_ids=(*d.dynamic_ids, *ids))
            for number, d in enumerate(new)
        ]
        core.drivers.save(new)
    for driver in new:
        _appear(core, driver)


def unload_module(core: Core, module: str) -> None:
    """Unload a module: unbind its drivers' devices, and remove the drivers."""
    with core.disk.kernel_lock():
        old = [d for d in core.drivers.loaded() if d.module == module]
        core.drivers.save([driver._replace(loaded=False, dynamic_ids=()) for driver in old])
    for driver in old:
        folder = f"{core.disk.sys}/bus/pci/drivers/{driver.name}"
        for name in names(folder):
            if ":" in name:  # a device; the others are attributes
                core.unbind(driver.name, name)
        core.disk.bury(folder)
    core.disk.bury(f"{core.disk.sys}/module/{module}")


def _appear(core: Core, driver: Driver) -> None:
    """Make a loaded driver's directory and let it try all devices, as bus_add_driver() does."""
    folder = f"{core.disk.sys}/bus/pci/drivers/{driver.name}"
    if not os.path.exists(folder):
        os.mkdir(folder)
        files = ["bind", "unbind", "new_id", "remove_id"]
        if driver.name == pciback.NAME:
            files += ["new_slot", "remove_slot"]
            make(f"{folder}/slots", "", 0o444)
        for name in files:
            make(f"{folder}/{name}", "", 0o200)
    if driver.module:
        drivers = f"{core.disk.sys}/module/{driver.module}/drivers"
        os.makedirs(drivers, exist_ok=True)
        link(folder, f"{drivers}/pci:{driver.name}")
        link(os.path.dirname(drivers), f"{folder}/module")
    # bus_add_driver() lets a new driver try the devices with drivers_autoprobe only.
    if read(f"{core.disk.sys}/bus/pci/drivers_autoprobe") == "1\n":
        core.attach_driver(driver)


def write_module_lists(core: Core) -> None:
    """Write the files of depmod(8); the caller holds the kernel lock."""
    drivers = core.drivers.all().values()
    folder = f"{core.disk.root}/lib/modules/{release_of(core.disk)}"
    modules = sorted({driver.module for driver in drivers if driver.module})
    aliases = [line for driver in drivers for line in _aliases(driver)]
    core.disk.put(f"{folder}/modules.alias", "".join(f"{line}\n" for line in aliases))
    core.disk.put(
        f"{folder}/modules.dep", "".join(f"kernel/drivers/{name}.ko:\n" for name in modules)
    )
    built_in = "".join(f"kernel/drivers/{d.name}.ko\n" for d in drivers if not d.module)
    core.disk.put(f"{folder}/modules.builtin", built_in)


def _aliases(driver: Driver) -> list[str]:
    # xen-pciback has no MODULE_DEVICE_TABLE: it is not to be loaded for every device (pci_stub.c).
    if not driver.module or driver.name == pciback.NAME:
        return []
    prefix = "vfio_pci" if driver.override_only else "pci"
    lines: list[str] = []
    for text in driver.ids:
        vendor, device = (
            part if part == "*" else f"0000{part.upper()}" for part in text.split(":")
        )
        lines.append(f"alias {prefix}:v{vendor}d{device}sv*sd*bc*sc*i* {driver.module}")
    return lines


def _option_ids(options: str) -> tuple[Ids, ...]:
    """Parse the ids in `ids=8086:10d3,10de:1db6`, an option of vfio-pci and pci-stub.

    As vfio_pci_fill_ids() reads it: a part that is no list of numbers is skipped.
    """
    words = options.replace('"', "").split()
    values = [word.removeprefix("ids=") for word in words if word.startswith("ids=")]
    found: list[Ids] = []
    for text in (text for value in values for text in value.split(",")):
        with suppress(ValueError, TypeError):
            found.append(Ids(*(int(part, 16) for part in text.split(":")[:6])))
    return tuple(found)
