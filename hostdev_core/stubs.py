"""Stub drivers: which one a device gets, and what loading its module would do to others."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hostdev_core import answers
from hostdev_core.domain import PCIHostdev
from hostdev_core.errors import NotAssignableError
from hostdev_core.host import Host
from hostdev_core.inventory import Inventory
from hostdev_core.pci import PCIDevice
from hostdev_core.plan import Stub
from hostdev_core.record import Record
from hostdev_core.sysfs import PCI_DRIVERS

if TYPE_CHECKING:
    from hostdev_core.local_driver import LocalHostdevDriver


def choose(
    driver: "LocalHostdevDriver",
    host: Host,
    hostdev: PCIHostdev | None,
    device: PCIDevice,
    listed: Record | None,
) -> Stub:
    """The stub for a device: the one that was asked for, the one it is on, or the backend's choice.

    `listed` is its record on the inactive list. NotAssignableError when there is no such stub.
    """
    current = device.kernel_driver
    asked = hostdev.stub if hostdev is not None else None
    if asked is not None and not answers.accepts_stub(driver, asked):
        raise NotAssignableError(
            f"{asked!r} is no stub driver that {driver.name} accepts; wanted {', '.join(driver.stubs)}",
            device=device.name,
            rule="stub",
        )
    if listed is not None and (
        not answers.accepts_stub(driver, current) or asked not in {None, current}
    ):
        raise NotAssignableError(
            f"{device.name} is on the inactive list, on {current or 'no driver'}, and {driver.name} wants"
            f" {asked or driver.stubs[0]}; give it back first: `hostdev device reattach {device.name}`",
            device=device.name,
            rule="stub",
        )
    if current is not None and asked in {None, current} and answers.accepts_stub(driver, current):
        return Stub(current)
    if hostdev is not None and not hostdev.managed:
        return Stub(asked or driver.stubs[0])  # check_managed refuses it, whatever it needs
    name = asked or answers.choose_stub(driver, host, device)
    return find_stub(host, device.name, name, driver.stub_modules.get(name, name))


def find_stub(host: Host, device: str, name: str, module: str) -> Stub:
    """The stub driver behind a name: a driver that is there, or one that a module brings.

    Raises NotAssignableError when it is missing, or blacklisted (saying where).
    """
    if host.sysfs.exists(f"{PCI_DRIVERS}/{name}"):
        return Stub(name)
    brought = host.modules.drivers(module)
    if brought:
        return Stub(brought[0])
    where = host.modules.blacklisted(module)
    if where is not None:
        raise NotAssignableError(
            f"{device} needs module {module}, which {where} blacklists; remove it there, or name another"
            " stub driver",
            device=device,
            rule="stub",
        )
    if not host.modules.exists(module):
        raise NotAssignableError(
            f"{device} needs module {module}, which kernel {host.kernel_release} does not have; install"
            " it, or name another stub driver",
            device=device,
            rule="stub",
        )
    return Stub(name.replace("_", "-"), module)  # what modules call their drivers as a rule


def check_module_ids(
    host: Host, modules: Iterable[str], inventory: Inventory, taken: set[str]
) -> None:
    """Refuse to load a module whose `ids=` option would seize driverless devices nobody asked for."""
    for module in modules:
        words = [word for word in host.modules.options(module).split() if word.startswith("ids=")]
        ids = {
            ":".join(entry.split(":")[:2]).lower()
            for word in words
            for entry in word[4:].split(",")
        }
        seized = [
            device.name
            for device in inventory.pci.values()
            if device.kernel_driver is None and device.ids in ids and device.name not in taken
        ]
        if seized:
            raise NotAssignableError(
                f"loading {module} with its modprobe.d option {words[0]} would seize {', '.join(seized)},"
                " which nobody asked for; load it yourself, or change the option",
                device=seized[0],
                rule="module-ids",
            )
