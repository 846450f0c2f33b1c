"""What was lent."""

import attrs

from hostdev_core.domain import Hostdev
from hostdev_core.pci import PCIDevice
from hostdev_core.usb import USBDevice


@attrs.frozen
class Assignment:
    """One hostdev of a domain and the device it got.

    `node` is the device node its hypervisor opens (None where it needs none), `arguments` are words
    for the hypervisor, in the backend's own form. `missing` says what was not found of a hostdev
    whose startup policy allows that; `device` is None then.
    """

    hostdev: Hostdev
    device: PCIDevice | USBDevice | None
    node: str | None = None
    arguments: tuple[str, ...] = ()
    missing: str | None = None
