"""The simulated kernel's PCI drivers: the known ones, the loaded ones, and the devices that each matches.

The rules are those of pci_match_device() in the kernel's drivers/pci/pci-driver.c.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple, cast

from hostdev_core.simulated.kernel.disk import Disk

ANY = 0xFFFFFFFF
STUBS = frozenset({"pci-stub", "pci-pf-stub", "pciback", "pcieport"})
_MODALIAS = re.compile(
    "pci:v([0-9A-F]{8})d([0-9A-F]{8})sv([0-9A-F]{8})sd([0-9A-F]{8})"
    "bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-F]{2})"
)


class Ids(NamedTuple):
    """The ids of a device, or, with `ANY` and a class mask, those that a driver matches."""

    vendor: int
    device: int
    subvendor: int = ANY
    subdevice: int = ANY
    class_: int = 0
    class_mask: int = 0

    @classmethod
    def parse(cls, text: str) -> "Ids":
        """Read "8086:10d3"; a star stands for any."""
        vendor, device = (ANY if part == "*" else int(part, 16) for part in text.split(":"))
        return cls(vendor, device)

    @classmethod
    def of_modalias(cls, text: str) -> "Ids":
        """Read a device's `modalias`; ValueError when it is none of PCI."""
        found = _MODALIAS.match(text)
        if found is None:
            raise ValueError(f"no PCI modalias: {text!r}")
        vendor, device, subvendor, subdevice = (int(part, 16) for part in found.groups()[:4])
        return cls(vendor, device, subvendor, subdevice, int("".join(found.groups()[4:]), 16))

    def accepts(self, other: "Ids") -> bool:
        """Tell whether this id of a driver matches the ids of a device."""
        pairs = zip(self[:4], other[:4], strict=True)
        return all(want in (ANY, got) for want, got in pairs) and not (
            (self.class_ ^ other.class_) & self.class_mask
        )


class Driver(NamedTuple):
    """A PCI driver; `order` is its place among those that try a new device.

    `at_boot`: it is loaded whenever the machine begins.
    """

    name: str
    module: str | None
    loaded: bool
    order: int
    ids: tuple[str, ...] = ()
    dynamic_ids: tuple[Ids, ...] = ()
    override_only: bool = False
    vfio: bool = False
    managed_dma: bool = False
    probe_errno: int | None = None
    gives_vfio: bool = False
    at_boot: bool = False

    @property
    def drives(self) -> bool:
        """Tell whether it makes the device work for the host: interfaces, disks and buses appear."""
        return not self.vfio and self.name not in STUBS

    def matches(self, ids: Ids, override: str | None) -> bool:
        """Tell whether it matches a device with these ids and this `driver_override` (None: unset)."""
        if override is not None:  # it alone decides, also for a driver without a fitting id
            return override == self.name
        return self.matches_statically(ids) or any(own.accepts(ids) for own in self.dynamic_ids)

    def matches_statically(self, ids: Ids) -> bool:
        """Tell whether the ids it was built with match without any `driver_override`."""
        # PCI_ID_F_VFIO_DRIVER_OVERRIDE: ids of VFIO drivers match with a driver_override only.
        return not self.override_only and any(Ids.parse(text).accepts(ids) for text in self.ids)


class Drivers:
    """The table of drivers, shared by all processes."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._cached: tuple[object, dict[str, Driver]] = (None, {})

    def all(self) -> dict[str, Driver]:
        """All known drivers, in the order in which they were registered."""
        version = self._disk.version("drivers")
        if self._cached[0] != version:  # read again only when some process has changed it
            stored = cast("dict[str, list[object]]", self._disk.recall("drivers"))
            known = sorted(map(_driver_of, stored.values()), key=lambda driver: driver.order)
            self._cached = version, {driver.name: driver for driver in known}
        return self._cached[1]

    def loaded(self) -> list[Driver]:
        """The loaded drivers, in the order in which they try a new device."""
        return [driver for driver in self.all().values() if driver.loaded]

    def get(self, name: str | None) -> Driver | None:
        """Find a driver by its name; None for an unknown one."""
        return self.all().get(name) if name else None

    def save(self, drivers: Iterable[Driver]) -> None:
        """Add these drivers, or replace those of their names; the caller holds the kernel lock."""
        table = self.all() | {driver.name: driver for driver in drivers}
        self._disk.remember("drivers", table)


def _driver_of(fields: list[object]) -> Driver:
    """Make a driver of its fields as JSON keeps them: tuples have become lists."""
    driver = Driver(*fields)  # type: ignore[arg-type]
    return driver._replace(
        ids=tuple(driver.ids), dynamic_ids=tuple(Ids(*ids) for ids in driver.dynamic_ids)
    )
