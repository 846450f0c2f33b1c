"""Recovery: what dead operations left behind is undone or finished.

`preparing` is undone, `releasing` is finished (with the holder guard), `active` is left alone. A
call recovers only what is in its way; `recover_all` does everything.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from hostdev_core.errors import (
    DeviceInUseError,
    DeviceNotFoundError,
    InvalidAddressError,
    ReattachError,
)
from hostdev_core.inventory.drift import check_seen, is_there
from hostdev_core.inventory.held_records import find_gone
from hostdev_core.inventory.state import HostdevState
from hostdev_core.lending.restore import Homeward
from hostdev_core.lending.stuck import is_crashed
from hostdev_core.model.address import PCIAddress, parse_address, quoted
from hostdev_core.model.assignment import Returned
from hostdev_core.model.outcome import Outcome, one_each
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.pci_rules import is_left_over, is_stranded
from hostdev_core.planning.request import LeftOverError, VoidRecordError
from hostdev_core.runtime import operation as operations
from hostdev_core.runtime.operation import Operation

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.host import Host

T = TypeVar("T")


def is_at_work(host: "Host", record: Record) -> bool:
    """Whether a living operation is at work on a record."""
    return record.op is not None and operations.is_alive(host.state_dir, record.op)


def recover_records(conn: "Connection", wanted: Iterable[Record], *, void: bool = False) -> Outcome:
    """Bring home what dead operations left of these records, and of their IOMMU groups.

    `void`: the devices were seen to be gone, and their addresses are wanted: these records end.
    """
    wanted = list(wanted)
    keys = {record.key for record in wanted}
    groups = {r.group for r in wanted if r.group is not None and is_there(conn.host, r)}
    return _recover(
        conn,
        lambda record, _: record.key in keys or record.group in groups,
        frozenset(wanted if void else ()),
    )


def recover_stranded(conn: "Connection", records: Iterable[Record]) -> Outcome:
    """Bring home what stayed on its stub for these records' IOMMU groups alone."""
    groups = {record.group for record in records if record.group is not None}
    holds = partial(is_there, conn.host)
    return _recover(
        conn, lambda record, all_: record.group in groups and is_stranded(record, all_, holds)
    )


def past_left_overs(conn: "Connection", call: Callable[[], T]) -> T:
    """What `call` answers when what dead operations left in its way is recovered, each record once."""
    recovered: set[tuple[str, str]] = set()
    while True:
        try:
            return call()
        except LeftOverError as error:
            if error.record.key in recovered:
                raise
            recovered.add(error.record.key)
            recover_records(conn, [error.record], void=isinstance(error, VoidRecordError))


def recover_all(conn: "Connection") -> Returned:
    """Bring home everything that dead operations left, and remove their lock files."""
    outcome = _recover(conn, lambda record, _: True)
    HostdevState(conn.host).cleanup()
    return Returned(outcome.raised(), **find_gone(conn.host, outcome.home), freed=outcome.freed)


def _recover(
    conn: "Connection",
    choose: Callable[[Record, list[Record]], bool],
    void: frozenset[Record] = frozenset(),
) -> Outcome:
    host = conn.host
    host.check_permitted()
    host.ledger.create()
    with Operation.start(host.state_dir, "recover") as operation:
        claimed: list[Record] = []
        with host.ledger.transaction() as transaction:
            records = transaction.records()
            for record in records:
                if choose(record, records) and (record in void or _is_lost(host, record, records)):
                    check_seen(host, [record])
                    phase = Phase.RELEASING if record.phase is Phase.ACTIVE else record.phase
                    mine = record._replace(phase=phase, op=operation.id)
                    if transaction.update(record, mine):
                        claimed.append(mine)
                        _forget_operation(host, record, records)
        outcome = Homeward(conn, operation).bring_home(claimed)
    if outcome.interrupted is not None:
        raise outcome.interrupted
    return outcome


def _is_lost(host: "Host", record: Record, records: list[Record]) -> bool:
    if is_stranded(record, records, partial(is_there, host)):
        return True
    return is_left_over(record) and not is_crashed(record) and not is_at_work(host, record)


def _forget_operation(host: "Host", record: Record, records: list[Record]) -> None:
    others = [other for other in records if other.op == record.op and other.key != record.key]
    if record.op is not None and not others:
        operations.forget(host.state_dir, record.op)


def forget_device(conn: "Connection", address: str) -> Record:
    """Delete a device's record and leave the device as it is; the record that was deleted.

    For what cannot be brought home: somebody else changed it, or its driver is gone. Refused while
    an operation that lives works on it.

    What stayed on its stub for this device's IOMMU group alone goes home; ReattachError, after the
    record was deleted, when that is stuck.
    """
    host, key = conn.host, _key_of(address)
    host.check_permitted()
    if not host.ledger.records():
        raise _not_recorded(key[1])
    with host.ledger.transaction() as transaction:
        records = transaction.records()
        record = next((record for record in records if record.key == key), None)
        if record is None:
            raise _not_recorded(key[1])
        if is_at_work(host, record):
            doing = operations.describe(host.state_dir, record.op or "")
            raise DeviceInUseError(
                f"{record.address} is at work: {doing}; it cannot be forgotten before that has ended",
                device=record.address,
                used_by=record.owner,
                rule="lent",
            )
        transaction.delete(record)
        _forget_operation(host, record, records)
    outcome = recover_stranded(conn, [record])
    kept = {name: e for name, e in outcome.errors.items() if not isinstance(e, DeviceInUseError)}
    if kept:
        raise ReattachError(
            f"{record.address} is forgotten; not given back: {', '.join(sorted(kept))}",
            [*one_each(kept)],
        )
    return record


def _key_of(text: str) -> tuple[str, str]:
    address = parse_address(text)
    if isinstance(address, PCIAddress):
        return "pci", str(address)
    if address.port is None:
        raise InvalidAddressError(
            f"{quoted(text)} names no record; name the USB device by its port"
        )
    return "usb", address.port


def _not_recorded(address: str) -> DeviceNotFoundError:
    return DeviceNotFoundError(
        f"hostdev has no record of {address}; `hostdev status` shows those there are",
        device=address,
    )
