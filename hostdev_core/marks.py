"""What the ledger says of a device that does not get where it should: stuck, or late, and why."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from hostdev_core.dependents import find_users, held_by
from hostdev_core.errors import HostdevError, KernelError, KernelTimeoutError
from hostdev_core.executor import Lane
from hostdev_core.holders import printable
from hostdev_core.host import Host
from hostdev_core.record import Record


def leave_late(host: Host, lane: Lane, members: Sequence[Record]) -> KernelTimeoutError:
    """Say in the records of a lane whose write has not returned why they stand still; the error.

    It names who uses the device, as far as that can be found. The records stay with the operation,
    which lives on.
    """
    working = [record for record in members if record.address in lane.doing] or members
    users: list[str] = []
    with suppress(KernelError):  # who uses it is for the message only
        for record in working:
            users += find_users(host, record.address, lane.before)
    error = KernelTimeoutError(
        f"{lane.doing}: the kernel has not returned in time{held_by(users)}; the device is given back"
        " when it does",
        path=host.sysfs.path(lane.path),
        value=working[0].address,
        holders=users,
    )
    with host.ledger.transaction() as transaction:
        for record in members:
            transaction.update(record, record._replace(stuck=reason_of(error)))
    return error


def mark_stuck(host: Host, record: Record, error: Exception) -> None:
    """Put a record to rest with the reason why its device is not where it should be.

    Where even that cannot be written, the error says so, and the record is left over.
    """
    try:
        with host.ledger.transaction() as transaction:
            transaction.update(record, record._replace(op=None, stuck=reason_of(error)))
    except HostdevError as problem:
        error.add_note(f"nor could that be recorded: {problem}")


def put_back(host: Host, changes: Mapping[Record, Record | None]) -> None:
    """Records that are still as they were changed to are as before; None: there was none."""
    with host.ledger.transaction() as transaction:
        for record in transaction.records():
            if record in changes:
                old = changes[record]
                transaction.update(record, old) if old else transaction.delete(record)


def reason_of(error: BaseException) -> str:
    """An error and its notes on one line; one that is not hostdev's own with its type."""
    told = isinstance(error, (HostdevError, OSError)) and str(error)
    text = told or f"{type(error).__name__}: {error}"
    notes: tuple[str, ...] = tuple(getattr(error, "__notes__", ()))
    return printable(" ".join((text, *notes)).replace("\n", " "))
