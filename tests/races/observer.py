"""What must be true at every moment, seen from outside while everybody is at work.

The ledger is locked meanwhile: nobody can claim a device or let go of it, so that every device
without a record must be as it was found, and every one at rest where its record says.
"""

import random
from collections.abc import Iterator

from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.simulated import SimulatedHost
from tests.races.machine import VFIO, Shelf

World = dict[str, dict[str, object]]
SAMPLE = 40  # devices without a record that are looked at each time


class Observer:
    """Knows how everything was found."""

    def __init__(self, host: SimulatedHost, shelf: Shelf, seed: int) -> None:
        self._host = host
        self._shelf = shelf
        self._random = random.Random(seed)
        self.found: World = host.snapshot()

    def look(self) -> list[str]:
        """What is wrong now."""
        with self._host.ledger.transaction() as transaction:
            records = transaction.records()
            wrong = [*_two_owners(records), *_families(records), *self._undo_data(records)]
            for record in records:
                wrong += self._at_rest(record)
            free = sorted({*self._shelf.pci} - {record.address for record in records})
            for name in self._random.sample(free, min(SAMPLE, len(free))):
                wrong += self._as_found(name)
        return wrong

    def _undo_data(self, records: list[Record]) -> Iterator[str]:
        """What was read for the way home is how the device was before anybody touched it."""
        for record in records:
            if record.address in self._shelf.pci and record.confirmed:
                known = self.found[record.address]
                if _shown(record.found) != known:
                    yield f"{record} is to go home as {record.found}, and was found as {known}"

    def _at_rest(self, record: Record) -> Iterator[str]:
        if record.address not in self._shelf.pci or record.op or record.stuck:
            return
        driver = self._host.sysfs.link(f"{PCI_DEVICES}/{record.address}/driver")
        if record.phase is Phase.PREPARING:
            yield f"{record} is nobody's work"
        if driver != VFIO:
            yield f"{record} rests on {driver}"

    def _as_found(self, name: str) -> Iterator[str]:
        path, known = f"{PCI_DEVICES}/{name}", self.found[name]
        now = {
            "kernel_driver": self._host.sysfs.link(f"{path}/driver"),
            "driver_override": self._host.sysfs.read(f"{path}/driver_override"),
            "power_control": self._host.sysfs.read(f"{path}/power/control"),
        }
        if now != known:
            yield f"{name} has no record and is {now}, found as {known}"


def _shown(found: Found) -> dict[str, object]:
    """As a snapshot shows it."""
    return {
        "kernel_driver": found.kernel_driver,
        "driver_override": found.driver_override or "(null)",
        "power_control": found.power_control,
    }


def _two_owners(records: list[Record]) -> Iterator[str]:
    if len({record.key for record in records}) < len(records):
        yield f"a device has two records: {records}"
    groups: dict[int, Record] = {}
    for record in records:
        if record.group is None or record.owner is None:
            continue
        other = groups.setdefault(record.group, record)
        if other.owner is None or not record.owner.is_same_owner(other.owner):
            yield f"two owners in group {record.group}: {record} and {other}"


def _families(records: list[Record]) -> Iterator[str]:
    names = {record.address for record in records}
    for record in records:
        for other in (record.physfn, record.controller):
            if other in names:
                yield f"{record.address} and {other} are claimed at the same time"
