"""Recover the records that dead operations left unfinished: restore their devices.

A record that is `preparing` is undone, one that is `releasing` is finished (with the holder guard), one
that is `active` is left alone. A call recovers only the records in its way; `recover_all` all of them.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from hostdev_core.backend import Caller
from hostdev_core.errors import (
    DeviceInUseError,
    DeviceNotFoundError,
    InvalidAddressError,
    ReattachError,
)
from hostdev_core.host import Host
from hostdev_core.inventory.drift import check_seen, owns_place
from hostdev_core.inventory.held_records import find_gone
from hostdev_core.inventory.state import HostdevState
from hostdev_core.lending.restore import Restore
from hostdev_core.model.address import FORMS, parse_address, quoted
from hostdev_core.model.assignment import Outcome, Returned, one_each
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.conflicts import (
    UnfinishedError,
    VoidRecordError,
    at_work_error,
    is_at_work,
    is_lost,
    is_orphaned,
)
from hostdev_core.runtime import operation as operations
from hostdev_core.runtime.operation import Operation

T = TypeVar("T")


def recover_records(caller: Caller, wanted: Iterable[Record], *, void: bool = False) -> Outcome:
    """Restore the devices of these records, and of their IOMMU groups, whose operation has died.

    `void`: the devices were seen to be gone, and their addresses are wanted: the records are deleted.
    """
    wanted = list(wanted)
    keys = {record.key for record in wanted}
    groups = {r.group for r in wanted if r.group is not None and owns_place(caller.host, r)}
    return _recover(
        caller,
        lambda record, _: record.key in keys or record.group in groups,
        frozenset(wanted if void else ()),
    )


def recover_orphaned(caller: Caller, records: Iterable[Record]) -> Outcome:
    """Restore the siblings that stayed on their stub for these records' IOMMU groups alone."""
    groups = {record.group for record in records if record.group is not None}
    owns = partial(owns_place, caller.host)
    return _recover(
        caller, lambda record, all_: record.group in groups and is_orphaned(record, all_, owns)
    )


def past_unfinished(caller: Caller, call: Callable[[], T]) -> T:
    """Make a call; recover the record that it reports as unfinished, and make it again.

    A record that is reported a second time was recovered in vain: its UnfinishedError is raised.
    """
    recovered: set[tuple[str, str]] = set()
    while True:
        try:
            return call()
        except UnfinishedError as error:
            if error.record.key in recovered:
                raise
            recovered.add(error.record.key)
            recover_records(caller, [error.record], void=isinstance(error, VoidRecordError))


def recover_all(caller: Caller) -> Returned:
    """Restore all devices that dead operations left unfinished, and remove their lock files."""
    outcome = _recover(caller, lambda record, _: True)
    HostdevState(caller.host).cleanup()
    gone = find_gone(caller.host, outcome.restored)
    return Returned(outcome.raised(), **gone, freed=outcome.freed)


def _recover(
    caller: Caller,
    choose: Callable[[Record, list[Record]], bool],
    void: frozenset[Record] = frozenset(),
) -> Outcome:
    """Claim those records that `choose` accepts and no living operation has, and restore their devices."""
    host = caller.host
    host.check_permitted()
    host.ledger.create()
    lost = partial(is_lost, host.state_dir, owns_place=partial(owns_place, host))
    with Operation.start(host.state_dir, "recover") as operation:
        claimed: list[Record] = []
        with host.ledger.transaction() as transaction:
            records = transaction.records()
            for record in records:
                if choose(record, records) and (record in void or lost(record, records)):
                    check_seen(host, [record])  # a device that sysfs hides is not gone
                    # An active one is an orphaned sibling, or its device is gone.
                    phase = Phase.RELEASING if record.phase is Phase.ACTIVE else record.phase
                    mine = record._replace(phase=phase, op=operation.id)
                    if transaction.update(record, mine):
                        claimed.append(mine)
                        _forget_operation(host, record, records)
        outcome = Restore(caller, operation).restore(claimed)
    if outcome.interrupted is not None:
        raise outcome.interrupted
    return outcome


def _forget_operation(host: Host, record: Record, records: list[Record]) -> None:
    """Remove the lock file of a record's operation, unless other records still name that operation."""
    others = [other for other in records if other.op == record.op and other.key != record.key]
    if record.op is not None and not others:
        operations.forget(host.state_dir, record.op)


def forget_device(caller: Caller, address: str) -> Record:
    """Delete a device's record, and leave the device as it is; returns the deleted record.

    For a device that cannot be restored: somebody else changed it, or its driver is gone.
    DeviceInUseError while a living operation works on it.

    Siblings that stayed on their stub for this device's IOMMU group alone are restored; ReattachError,
    after the record was deleted, when one of them is stuck.
    """
    host, key = caller.host, _key_of(caller.host, address)
    host.check_permitted()
    if not host.ledger.records():
        raise _not_recorded(key[1])
    with host.ledger.transaction() as transaction:
        records = transaction.records()
        record = next((record for record in records if record.key == key), None)
        if record is None:
            raise _not_recorded(key[1])
        if is_at_work(host.state_dir, record):
            then = "it cannot be forgotten before that has ended"
            raise at_work_error(host.state_dir, record, then)
        transaction.delete(record)
        _forget_operation(host, record, records)
    outcome = recover_orphaned(caller, [record])
    # A sibling that is in use stays lent: that is no failure of this call.
    kept = {name: e for name, e in outcome.errors.items() if not isinstance(e, DeviceInUseError)}
    if kept:
        raise ReattachError(
            f"{record.address} is forgotten; not given back: {', '.join(sorted(kept))}",
            [*one_each(kept)],
        )
    return record


def _key_of(host: Host, text: str) -> tuple[str, str]:
    for kind, bus in host.buses.items():
        if name := bus.parse(text):
            return kind, name
    parse_address(text)  # raises what is wrong with it
    raise InvalidAddressError(f"{quoted(text)} names no device; wanted: {FORMS}")


def _not_recorded(address: str) -> DeviceNotFoundError:
    return DeviceNotFoundError(
        f"hostdev has no record of {address}; `hostdev status` shows those there are",
        device=address,
    )
