"""Plan a USB device: find the one that is meant, and the record it gets. No step is written for it."""

from collections.abc import Sequence

from hostdev_core.bus.bus import PATIENCE
from hostdev_core.bus.hubs import check_no_hub
from hostdev_core.bus.unknown import no_such_device, usb_names
from hostdev_core.bus.usb_texts import NOT_ASKED, check_answered
from hostdev_core.errors import NotAssignableError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.model.device import USBDevice
from hostdev_core.model.domain import PrepareFlags, USBHostdev
from hostdev_core.planning.claim_only import ClaimPlanner
from hostdev_core.planning.request import Question


def check_takes_usb(driver: str, hostdev: USBHostdev, *, takes_usb: bool) -> None:
    """Refuse a USB device, there or not, for a hypervisor that takes PCI devices only."""
    if not takes_usb:
        raise NotAssignableError(
            f"{hostdev} is a USB device, and {driver} takes PCI devices only; lend the USB controller"
            " that it is plugged into, with all that is on it, or use another hypervisor",
            device=str(hostdev),
            rule="pci-only",
        )


def resolve_usb(
    host: Host, hostdev: USBHostdev, inventory: Inventory, *, cold_boot: bool
) -> USBDevice | None:
    """Find the one device that matches; None for a missing one whose startup policy allows that.

    Devices are asked for their serial only when all else that is given matches: the read takes their lock.
    """
    wanted = hostdev.selector
    rest = wanted._replace(serial=None)
    found = [device for device in inventory.usb.values() if device.matches(rest)]
    if wanted.serial is not None:
        found = [d for d in ask_usb(host, hostdev, found) if d.matches(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        # For the message: a serial may tell a person which one to name.
        told = host.usb_texts.fill(found, PATIENCE)
        rows = "; ".join(f"{d.port} ({d.number}, serial {_serial(d)})" for d in told)
        raise NotAssignableError(
            f"{len(found)} USB devices match {hostdev}: {rows}. Name one by its port",
            device=str(hostdev),
            rule="ambiguous-device",
        )
    if hostdev.startup_policy == "mandatory" or (
        hostdev.startup_policy == "requisite" and cold_boot
    ):
        check_no_hub(host.sysfs, host.usb_texts, hostdev.selector, inventory.usb.values())
        raise no_such_device("USB device", str(hostdev), usb_names(inventory.usb.values()))
    return None


def _serial(device: USBDevice) -> str:
    return "unknown: it does not answer" if device.unread else device.serial or "none"


def ask_usb(
    host: Host, wanted: USBHostdev, devices: Sequence[USBDevice], *, needed: bool = True
) -> list[USBDevice]:
    """Read the serials and labels of devices, within the deadline of an attribute.

    Raises KernelTimeoutError for one that does not answer: it may be the one that is `wanted`. Unless
    the serial is `needed`, a device that could not even be asked (no thread) is known by its directory.
    """
    asked = host.usb_texts.fill(devices, host.deadlines.attribute) if devices else []
    for device in asked:
        if needed or not (device.unread or "").startswith(NOT_ASKED):
            check_answered(host.sysfs, device, wanted)
    return asked


class USBPlanner(ClaimPlanner):
    """Plans for USB devices, which are found by a port, a number, ids or a serial."""

    def resolve(self, question: Question, hostdev: USBHostdev) -> USBDevice | None:
        """Find the device that a hostdev means; None for a missing one whose policy allows that."""
        driver = question.lender.backend.driver
        check_takes_usb(driver.name, hostdev, takes_usb=driver.takes_usb)
        cold = PrepareFlags.COLD_BOOT in question.request.flags
        return resolve_usb(question.host, hostdev, question.inventory, cold_boot=cold)

    def read(self, question: Question, hostdev: USBHostdev, device: USBDevice) -> USBDevice:
        """Ask a device that is to be taken for its serial, which is recorded."""
        (asked,) = ask_usb(question.host, hostdev, [device], needed=False)
        return asked._replace(unread=None)
