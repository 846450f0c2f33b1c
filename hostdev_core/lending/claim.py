"""Claim all devices of a plan in the ledger, or none, and read them again before the first write.

A look takes no lock: between it and the claim, others may have changed a device.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from hostdev_core.backend import Lender
from hostdev_core.errors import DeviceError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import check_there
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.ledger.store import now
from hostdev_core.lending.recovery import past_unfinished
from hostdev_core.lending.restore import Restore
from hostdev_core.model.near import near_to
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.conflicts import check_free
from hostdev_core.planning.planner import is_as_planned
from hostdev_core.planning.request import Decision
from hostdev_core.runtime.operation import Operation

Records = Mapping[tuple[str, str], Record]


def claim(lender: Lender, operation: Operation, decision: Decision) -> list[Record] | None:
    """Claim and confirm all devices of a decision, or none; returns their records.

    None when a device, or the inactive list, has changed since the decision was made: decide again.
    Raises DeviceInUseError naming the user of a device. Records of dead operations in the way are
    recovered first. An interrupt leaves the records under the operation's id.
    """
    planned = [device.record for device in decision.plan.devices]
    records = past_unfinished(
        lender, partial(insert, lender.host, operation, planned, decision.inventory)
    )
    if records is None:
        return None
    confirmed = _confirm(lender.host, operation, decision, records)
    if confirmed is not None:
        return confirmed
    # Without `confirmed` a record has nothing to undo: restoring deletes it, or puts it on its list.
    dropped = Restore(lender, operation).restore(records)
    if dropped.interrupted is not None:
        raise dropped.interrupted
    return None


def insert(
    host: Host, operation: Operation, planned: Iterable[Record], inventory: Inventory
) -> list[Record] | None:
    """Claim these records for an operation in one transaction; returns them as written.

    None when a device came to the inactive list, or left it, since the look. Raises DeviceInUseError for
    a record in the way, UnfinishedError for one that can be recovered.
    """
    moment = now()
    wanted = [record._replace(op=operation.id, since=moment) for record in planned]
    with host.ledger.transaction() as transaction:
        records = transaction.near(near_to(wanted))
        before = inventory.records or {}
        if records != before and _has_changed(wanted, before, records):
            return None
        # Check all before the first is written: a refused claim changes nothing.
        for record in wanted if records else ():
            check_free(host.state_dir, record, records, partial(inventory.owns_place, host))
        for record in wanted:
            old = records.get(record.key)
            transaction.update(old, record) if old else transaction.insert(record)
    return wanted


def _confirm(
    host: Host, operation: Operation, decision: Decision, records: list[Record]
) -> list[Record] | None:
    """Read each claimed device again; confirm the records when all is as it was planned.

    None when it is not. From the confirmation on, the records are the undo data: without it, nothing was
    written to their devices.
    """
    try:
        if not is_as_planned(decision):
            return None
    except DeviceError:
        check_there(host, records)  # a device that was pulled explains more
        raise
    with host.ledger.transaction() as transaction:
        must(transaction.confirm(operation.id) == len(records), *records)
    return [record._replace(confirmed=True) for record in records]


def _has_changed(wanted: Iterable[Record], before: Records, records: Records) -> bool:
    """Whether a device came to the inactive list, or left it, since the look of the decision."""
    for record in wanted:
        old, new = before.get(record.key), records.get(record.key)
        # A record of another phase is a conflict, and check_free names its user.
        if old != new and (new is None or new.phase is Phase.INACTIVE):
            return True
    return False


def find_claims(host: Host, operation: Operation, claimed: Sequence[Record]) -> list[Record]:
    """Find the records of an operation, and those of the `claimed` that went with the whole ledger."""
    near = near_to(claimed)
    found = host.ledger.read(
        lambda records: (records.near(near), records.of_operation(operation.id))
    )
    known, records = found or ({}, [])
    return [*records, *(record for record in claimed if record.key not in known)]


def must(done: bool, *records: Record) -> None:
    """Raise StateError unless the compare-and-set of these records was `done`."""
    if not done:
        names = ", ".join(record.address for record in records)
        raise StateError(f"the record of {names} was changed by somebody else meanwhile")
