"""Log: claim all devices of a request or none, and read them again before anything is written."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import attrs

from hostdev_core.errors import DeviceError, PluginError, StateError
from hostdev_core.inventory.drift import check_there, way_out
from hostdev_core.inventory.inventory import look
from hostdev_core.ledger.store import now
from hostdev_core.lending.recovery import is_at_work, recover_records
from hostdev_core.lending.restore import Homeward
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.pci_rules import (
    Holds,
    find_conflict,
    in_use,
    is_left_over,
    is_stranded,
    is_void,
)
from hostdev_core.planning.planner import decide
from hostdev_core.planning.request import Decision, Request
from hostdev_core.runtime import operation as operations
from hostdev_core.runtime.operation import Operation

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.local_driver import LocalHostdevDriver

Records = Mapping[tuple[str, str], Record]


@attrs.define(eq=False)
class Claim:
    """The claim of one operation on the devices of a decision.

    Whoever is interrupted between its steps finds the records under the operation's id.
    """

    driver: "LocalHostdevDriver"
    conn: "Connection"
    request: Request
    operation: Operation

    def take(self, decision: Decision) -> list[Record] | None:
        """Claim and confirm all devices, or none; their records, ready for the first write.

        None when the world is not what was decided over any more. Raises DeviceInUseError naming
        who has the device; what dead operations left in the way is recovered first.
        """
        records = self._insert(decision)
        if records is None or self._confirm(decision, records):
            return records
        dropped = Homeward(self.conn, self.operation).bring_home(records)
        if dropped.interrupted is not None:
            raise dropped.interrupted
        return None

    def _insert(self, decision: Decision) -> list[Record] | None:
        """One transaction decides; None when the inactive list has changed since the look."""
        host = self.conn.host
        planned = [device.record for device in decision.plan.devices]
        wanted = [record._replace(op=self.operation.id, since=now()) for record in planned]
        recovered: set[tuple[str, str]] = set()
        holds = partial(decision.inventory.holds, host)
        while True:
            with host.ledger.transaction() as transaction:
                records = {record.key: record for record in transaction.records()}
                if _has_changed(wanted, decision.inventory.records or {}, records):
                    return None
                hit = _first_conflict(wanted, records, holds)
                if hit is None:
                    for record in wanted:
                        old = records.get(record.key)
                        transaction.update(old, record) if old else transaction.insert(record)
                    return wanted
            record, other = hit
            void = record.key == other.key and is_void(other, holds)
            lost = void or is_left_over(other) or is_stranded(other, records.values(), holds)
            if other.key in recovered or is_at_work(host, other) or not lost:
                doing = operations.describe(host.state_dir, other.op) if other.op else None
                raise in_use(record.address, other, doing, then=way_out(other, doing))
            recovered.add(other.key)
            recover_records(self.conn, [other], void=void)

    def _confirm(self, decision: Decision, records: list[Record]) -> bool:
        """Read each device again, now that it is claimed; this reading is the undo data.

        False when it differs from what was planned.
        """
        try:
            again = self._decide_again(decision)
        except DeviceError:
            check_there(self.conn.host, records)  # a device that was pulled explains more
            raise
        now, planned = ([d.record for d in each.plan.devices] for each in (again, decision))
        if now != planned:
            self._check_steps(now, planned)
            return False
        with self.conn.host.ledger.transaction() as transaction:
            for index, record in enumerate(records):
                records[index] = record._replace(confirmed=True)
                must(transaction.update(record, records[index]), record)
        return True

    def _check_steps(self, now: list[Record], planned: list[Record]) -> None:
        """Raise for a backend whose own steps are others each time that it is asked, of the same device."""
        for one, other in zip(now, planned, strict=False):
            if one != other and one._replace(steps="") == other._replace(steps=""):
                raise PluginError(
                    f"driver {self.driver.name}: extra_steps of {one.address} are {one.steps} now, and were"
                    f" {other.steps} a moment ago; wanted the same each time",
                    plugin=self.driver.name,
                    hook="extra_steps",
                )

    def _decide_again(self, decision: Decision) -> Decision:
        """Decide again over a fresh look, with the ledger as it was before the claim."""
        inventory = look(self.conn.host)
        mine = {device.record.key for device in decision.plan.devices}
        before = decision.inventory.records or {}
        records = {key: r for key, r in (inventory.records or {}).items() if key not in mine}
        records |= {key: r for key, r in before.items() if key in mine}
        return decide(
            self.driver,
            self.conn,
            self.request,
            inventory.with_records(self.conn.host, records),
            ask=False,
        )


def _first_conflict(
    wanted: list[Record], records: Records, holds: Holds
) -> tuple[Record, Record] | None:
    for record in wanted:
        if other := find_conflict(record, records, holds):
            return record, other
    return None


def _has_changed(wanted: Iterable[Record], before: Records, records: Records) -> bool:
    """Whether a device came to the inactive list or left it since it was looked at."""
    for record in wanted:
        old, new = before.get(record.key), records.get(record.key)
        if old != new and (new is None or new.phase is Phase.INACTIVE):
            return True
    return False


def must(done: bool, record: Record) -> None:
    """StateError when a compare-and-set of a record found another one."""
    if not done:
        raise StateError(f"the record of {record.address} was changed by somebody else meanwhile")
