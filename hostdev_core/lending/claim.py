"""Claim all devices of a plan in the ledger, or none, and read them again before the first write.

A look takes no lock: between it and the claim, others may have changed a device.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from hostdev_core.backend import Lender
from hostdev_core.errors import DeviceError, PluginError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import check_there
from hostdev_core.inventory.inventory import Inventory, look
from hostdev_core.ledger.store import now
from hostdev_core.lending.recovery import past_unfinished
from hostdev_core.lending.restore import Restore
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.conflicts import check_free
from hostdev_core.planning.planner import decide
from hostdev_core.planning.request import Decision, Request
from hostdev_core.runtime.operation import Operation

Records = Mapping[tuple[str, str], Record]


def claim(
    lender: Lender, request: Request, operation: Operation, decision: Decision
) -> list[Record] | None:
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
    confirmed = _confirm(lender, request, decision, records)
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
    wanted = [record._replace(op=operation.id, since=now()) for record in planned]
    with host.ledger.transaction() as transaction:
        records = {record.key: record for record in transaction.records()}
        if _has_changed(wanted, inventory.records or {}, records):
            return None
        # Check all before the first is written: a refused claim changes nothing.
        for record in wanted:
            check_free(host.state_dir, record, records, partial(inventory.owns_place, host))
        for record in wanted:
            old = records.get(record.key)
            transaction.update(old, record) if old else transaction.insert(record)
    return wanted


def _confirm(
    lender: Lender, request: Request, decision: Decision, records: list[Record]
) -> list[Record] | None:
    """Read each claimed device again; confirm the records when the plan would be the same.

    None when it would be another one. From the confirmation on, the records are the undo data: without
    it, nothing was written to their devices.
    """
    try:
        again = _decide_again(lender, request, decision)
    except DeviceError:
        check_there(lender.host, records)  # a device that was pulled explains more
        raise
    now, planned = ([d.record for d in each.plan.devices] for each in (again, decision))
    if now != planned:
        _check_steps(lender.backend.name, now, planned)
        return None
    confirmed = [record._replace(confirmed=True) for record in records]
    with lender.host.ledger.transaction() as transaction:
        for old, new in zip(records, confirmed, strict=True):
            must(transaction.update(old, new), old)
    return confirmed


def _check_steps(backend: str, now: list[Record], planned: list[Record]) -> None:
    """Raise PluginError for a backend whose `extra_steps` differ from call to call for one device.

    Without this, each attempt would end as a change of the device, and the message blame that.
    """
    for one, other in zip(now, planned, strict=False):
        if one != other and one._replace(steps="") == other._replace(steps=""):
            raise PluginError(
                f"driver {backend}: extra_steps of {one.address} are {one.steps} now, and were"
                f" {other.steps} a moment ago; wanted the same each time",
                plugin=backend,
                hook="extra_steps",
            )


def _decide_again(lender: Lender, request: Request, decision: Decision) -> Decision:
    """Decide again over a fresh look at the devices, with their records as before the claim."""
    inventory = look(lender.host)
    mine = {device.record.key for device in decision.plan.devices}
    before = decision.inventory.records or {}
    # The operation's own claims would refuse the devices as in use.
    records = {key: r for key, r in (inventory.records or {}).items() if key not in mine}
    records |= {key: r for key, r in before.items() if key in mine}
    return decide(lender, request, inventory.with_records(lender.host, records), ask=False)


def _has_changed(wanted: Iterable[Record], before: Records, records: Records) -> bool:
    """Whether a device came to the inactive list, or left it, since the look of the decision."""
    for record in wanted:
        old, new = before.get(record.key), records.get(record.key)
        # A record of another phase is a conflict, and check_free names its user.
        if old != new and (new is None or new.phase is Phase.INACTIVE):
            return True
    return False


def must(done: bool, record: Record) -> None:
    """Raise StateError unless the compare-and-set of a record was `done`."""
    if not done:
        raise StateError(f"the record of {record.address} was changed by somebody else meanwhile")
