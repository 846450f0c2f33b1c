"""Look at a host once for a call: its devices, joined with the records of its ledger."""

from functools import reduce
from typing import Any, NamedTuple, cast

from hostdev_core.bus.bus import PATIENCE, SAME, Bus
from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.model.device import Device, PCIDevice, USBDevice
from hostdev_core.model.near import Near

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hostdev_core.host import Host
    from hostdev_core.model.domain import Hostdev
    from hostdev_core.model.record import Record

Key = tuple[str, str]
UNSETTLED = frozenset({"stuck", "left over"})
"""States that need `hostdev recover` or an administrator."""


class Inventory(NamedTuple):
    """The devices of a host, by kind and name, and the records of its ledger, at one moment.

    `records` is None when the ledger cannot be read: whose a device is, is unknown then, and
    `unread` says why. `others` are the keys of records at whose address another device is now: it has
    nothing to do with them. `replugged` are those whose USB device came back under another number.
    """

    by_kind: dict[str, dict[str, Device]]
    records: "dict[Key, Record] | None"
    unread: str | None = None
    others: frozenset[Key] = frozenset()
    replugged: frozenset[Key] = frozenset()

    @property
    def pci(self) -> dict[str, PCIDevice]:
        """The PCI devices, by address."""
        found: dict[str, Any] = self.by_kind.get("pci", {})
        return found

    @property
    def usb(self) -> dict[str, USBDevice]:
        """The USB devices, by port."""
        return cast("dict[str, USBDevice]", self.by_kind.get("usb", {}))

    @property
    def devices(self) -> "Iterator[Device]":
        """All devices, bus by bus."""
        return (device for devices in self.by_kind.values() for device in devices.values())

    def at(self, key: Key) -> Device | None:
        """The device of this kind and name that is there."""
        return self.by_kind.get(key[0], {}).get(key[1])

    def group(self, number: int | None) -> list[PCIDevice]:
        """The members of an IOMMU group, by address; none for a device without a group."""
        if number is None:
            return []
        return [device for device in self.pci.values() if device.iommu_group == number]

    def record_of_device(self, key: Key) -> "Record | None":
        """The record of the device that is there now; None when it is about one that was there before."""
        return None if key in self.others else self.record_at_address(key)

    def record_at_address(self, key: Key) -> "Record | None":
        """The record that the ledger has for this address, also about a device that was there before."""
        return self.records.get(key) if self.records else None

    @property
    def absent(self) -> "list[Record]":
        """The records of devices that are not there (any more), also where another one is now."""
        known = self.records or {}
        return [r for key, r in known.items() if key in self.others or self.at(key) is None]

    def owns_place(self, host: "Host", record: "Record") -> bool:
        """Whether a record's group, PF and controller are still its device's (`Bus.owns_place`).

        A device that is known by more than its directory is judged by this look alone: one that came
        back keeps its place, and so does one whose record has changed since.
        """
        bus = host.buses[record.kind]
        if bus.has_steps:
            return bus.owns_place(record)
        if self.record_at_address(record.key) != record:
            return True
        return bus.identify(record, self.at(record.key)) in SAME


def look(host: "Host", *, tolerant: bool = False, texts: bool = False) -> Inventory:
    """Look at all devices and records once; nothing that takes a device's lock is read.

    With `tolerant`, a ledger that cannot be read is left unknown, and so are parts of a device that
    cannot be seen; otherwise NotPermittedError, StateError or KernelError. With `texts`, devices are
    asked for their serials and labels, too, within PATIENCE seconds. The ledger is read first: a device
    that is taken meanwhile shows as free on its old driver, and the claim finds that out.
    """
    records: dict[Key, Record] | None = None
    unread: str | None = None
    try:
        records = {record.key: record for record in read_records(host)}
    except (NotPermittedError, StateError) as error:
        if not tolerant:
            raise
        unread = str(error)
    seen: dict[str, Mapping[str, Device]] = {}
    for kind, bus in host.buses.items():
        seen[kind] = bus.devices(tolerant=tolerant)
        if texts:
            seen[kind] = bus.describe(seen[kind], PATIENCE)
    return _joined(host, seen, records, unread)


def look_near(host: "Host", hostdevs: "Iterable[Hostdev]") -> Inventory:
    """Look at the devices that these hostdevs may mean, at those that go with them, and at the records near
    them; at nothing else, whatever else the host has and the ledger holds.

    The records are read first, as in `look`. NotPermittedError, StateError or KernelError as there.
    """
    asked: dict[str, list[Hostdev]] = {}
    for hostdev in hostdevs:
        asked.setdefault(hostdev.kind, []).append(hostdev)
    scopes = {kind: host.buses[kind].scope(asked[kind]) for kind in host.buses if kind in asked}
    near = reduce(Near.plus, (scope.near for scope in scopes.values()), Near())
    records = read_near(host, near)
    seen = {kind: host.buses[kind].see(scope) for kind, scope in scopes.items()}
    for kind in {kind for kind, _ in records} - {*seen}:
        # Whether such a record still owns its place is told by its device, not by its directory.
        if not host.buses[kind].has_steps:
            seen[kind] = host.buses[kind].devices()
    return _joined(host, seen, records, None)


def read_records(host: "Host") -> "list[Record]":
    """Read the ledger's records; sqlite3 is not loaded when there is no ledger."""
    return host.ledger.records() if _has_ledger(host) else []


def read_near(host: "Host", near: Near) -> "dict[Key, Record]":
    """Read the records near some devices, as `read_records` reads all."""
    if not _has_ledger(host):
        return {}
    return host.ledger.read(lambda records: records.near(near)) or {}


def _has_ledger(host: "Host") -> bool:
    import os

    host.check_ledger()
    try:
        os.lstat(host.state_dir)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise NotPermittedError(f"may not read {host.state_dir}; run as root") from error
    except OSError as error:
        raise StateError(f"cannot look at {host.state_dir}: {error.strerror}") from error
    return True


def _joined(
    host: "Host",
    seen: "Mapping[str, Mapping[str, Device]]",
    records: "dict[Key, Record] | None",
    unread: str | None,
) -> Inventory:
    identified = _identify(host, seen, records) if records else {}
    others = frozenset(key for key, which in identified.items() if which not in SAME)
    again = frozenset(key for key, which in identified.items() if which == "replugged")
    known = {key: record for key, record in (records or {}).items() if key not in others}
    joined = {
        kind: {
            name: with_record(bus, device, known.get((kind, name)))
            for name, device in seen[kind].items()
        }
        for kind, bus in host.buses.items()
        if kind in seen
    }
    return Inventory(joined, records, unread, others, again)


def _identify(
    host: "Host", seen: "Mapping[str, Mapping[str, Device]]", records: "Mapping[Key, Record]"
) -> dict[Key, str]:
    """Compare the device at each record's address with the record (`Bus.identify`), by the record's key."""
    return {
        key: bus.identify(record, device)
        for kind, bus in host.buses.items()
        for name, device in seen.get(kind, {}).items()
        if (record := records.get(key := (kind, name))) is not None
    }


def with_record(bus: Bus, device: Device, record: "Record | None") -> Device:
    """Add the owner, phase and reason of a record to its device; remove them for None."""
    if record is None and device.phase is None:
        return device
    if record is None:
        return device._replace(used_by=None, phase=None, stuck=None)
    known: Device = bus.recall(device, record)
    return known._replace(used_by=record.owner, phase=str(record.phase), stuck=record.stuck)


def record_state(record: "Record", is_alive: "Callable[[str], bool]") -> str:
    """The state of a device that has a record, in a word or two: docs/cli.md lists them.

    `is_alive` tells whether an operation is at work.
    """
    phase = str(record.phase)
    if record.stuck is not None:
        return "stuck"
    if record.op is not None:
        return phase if is_alive(record.op) else "left over"
    if phase == "active":  # a sibling was taken with its IOMMU group, and not handed to the guest
        return "lent" if record.handed else "sibling"
    # Releasing without an operation: it is free, and waits on its stub for the rest of its group.
    return "waiting" if phase == "releasing" else phase
