"""What the ledger says of a device that does not get where it should: stuck, or late, and why."""

from collections.abc import Iterable, Mapping, Sequence

from hostdev_core.errors import HostdevError, KernelTimeoutError
from hostdev_core.executor import Lane
from hostdev_core.host import Host
from hostdev_core.record import Record


def timeout_error(host: Host, lane: Lane, members: Sequence[Record]) -> KernelTimeoutError:
    """The error for a lane whose write has not returned, naming the holders that can be found."""
    nodes = [f"dev/vfio/{record.group}" for record in members if record.group is not None]
    holders = [str(holder) for holder in host.holders(nodes)]
    found = f"; held by {', '.join(holders)}" if holders else ""
    return KernelTimeoutError(
        f"{lane.doing}: the kernel has not returned in time{found}; the device is given back when it does",
        path=host.sysfs.path(lane.path),
        value=members[0].address,
        holders=holders,
    )


def mark_stuck(host: Host, record: Record, error: Exception) -> None:
    """Put a record to rest with the reason why its device is not where it should be.

    Where even that cannot be written, the error says so, and the record is left over.
    """
    try:
        with host.ledger.transaction() as transaction:
            transaction.update(record, record._replace(op=None, stuck=reason_of(error)))
    except HostdevError as problem:
        error.add_note(f"nor could that be recorded: {problem}")


def mark_late(host: Host, members: Iterable[Record], error: Exception) -> None:
    """Say in the records why they stand still; they stay with the operation, which lives on."""
    with host.ledger.transaction() as transaction:
        for record in members:
            transaction.update(record, record._replace(stuck=reason_of(error)))


def put_back(host: Host, changes: Mapping[Record, Record | None]) -> None:
    """Records that are still as they were changed to are as before; None: there was none."""
    with host.ledger.transaction() as transaction:
        for record in transaction.records():
            if record in changes:
                old = changes[record]
                transaction.update(record, old) if old else transaction.delete(record)


def reason_of(error: BaseException) -> str:
    """An error and its notes on one line."""
    return " ".join((str(error), *getattr(error, "__notes__", ()))).replace("\n", " ")
