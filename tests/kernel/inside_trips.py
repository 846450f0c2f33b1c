"""Lend a device and take it back, from every state that it may be found in."""

from __future__ import annotations

from typing import NamedTuple

from hostdev_core import Domain, PCIHostdev, open_connection
from hostdev_core.kernel.sysfs import Sysfs

from .inside_world import State, state


class Trip(NamedTuple):
    """A device before it was lent, while it was, and afterwards; who was on the inactive list last."""

    before: State
    lent: State
    after: State
    inactive: list[str]


FOUND = {
    "on its driver": ("HOME", None),
    "without a driver": (None, None),
    "with an override": ("HOME", "HOME"),
    "driverless with an override": (None, "HOME"),
    "on the stub": ("STUB", "STUB"),
    "on the stub without an override": ("STUB", None),
    "with power control": ("HOME", None),
    "unmanaged, on the stub": ("STUB", "STUB"),
}
"""Where a device may be found, and the text of its driver_override."""


def round_trips(address: str, stub: str, *, uri: str | None = None) -> dict[str, Trip]:
    """Lend a device and take it back from every state that it may be found in.

    It must be on its host driver, without a driver_override, and is left so.
    """
    names = {"HOME": state(address).kernel_driver, "STUB": stub}
    trips: dict[str, Trip] = {}
    for found, (driver, override) in FOUND.items():
        _put(address, names.get(driver or ""), names.get(override or ""))
        power = "auto" if found == "with power control" else "on"
        Sysfs().write(f"bus/pci/devices/{address}/power/control", power)
        trips[found] = _trip(address, uri, managed=not found.startswith("unmanaged"))
    _put(address, names["HOME"], None)
    return trips


def _trip(address: str, uri: str | None, *, managed: bool) -> Trip:
    before = state(address)
    with open_connection(uri) as conn:
        hostdev = PCIHostdev(address=address, managed=managed)
        conn.prepare_hostdevs(Domain("trip", [hostdev]))
        lent = state(address)
        conn.reattach_hostdevs("trip")
        inactive = [device.name for device in conn.get_inactive_pci_hostdev_list()]
        after = state(address)
        for name in inactive:
            conn.reattach_device(name)
    return Trip(before, lent, after, inactive)


def _put(address: str, driver: str | None, override: str | None) -> None:
    """Bind a device by plain writes."""
    sysfs, path = Sysfs(), f"bus/pci/devices/{address}"
    if sysfs.exists(f"{path}/driver"):
        sysfs.write(f"{path}/driver/unbind", address)
    if address in (sysfs.read("bus/pci/drivers/pciback/slots") or "").split():
        sysfs.write("bus/pci/drivers/pciback/remove_slot", address)
    sysfs.write(f"{path}/driver_override", f"{driver or ''}\n")
    if driver is not None:
        sysfs.write(f"bus/pci/drivers/{driver}/bind", address)
    sysfs.write(f"{path}/driver_override", f"{override or ''}\n")
