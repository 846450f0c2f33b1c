"""What the ledger says of a device that does not get where it should: stuck, or late, and why."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from hostdev_core.errors import (
    HostdevError,
    KernelCrashError,
    KernelError,
    KernelTimeoutError,
)
from hostdev_core.host import Host
from hostdev_core.inventory.users import find_users, held_by
from hostdev_core.kernel.processes import printable
from hostdev_core.model.record import Record
from hostdev_core.runtime.lanes import Lane

# How the reason begins, in a ledger too, that a device waits for nobody but a reboot.
CRASHED = "the kernel crashed"


def is_crashed(record: Record) -> bool:
    """Whether the kernel keeps this device's lock for ever: whoever asks for it never returns."""
    return record.stuck is not None and record.stuck.startswith(CRASHED)


def crashed(host: Host, lane: Lane, address: str) -> KernelCrashError:
    """The error for a write in which the kernel crashed, with what it said of that."""
    lines = [] if lane.thread is None else lane.kernel.oops(lane.thread)
    lane.kernel.close()  # which its thread does not any more
    told = f" (kernel: {'; '.join(lines)})" if lines else ""
    return KernelCrashError(
        f"{CRASHED} in this: {lane.doing}{told}; it keeps the device locked, and only a reboot frees it",
        path=host.sysfs.path(lane.path),
        value=address,
    )


def leave_late(host: Host, lane: Lane, members: Sequence[Record]) -> KernelTimeoutError:
    """Say in the records of a lane whose write has not returned why they stand still; the error.

    It names who uses the device, as far as that can be found. The records stay with the operation,
    which lives on; a lane that has died has no operation any more, and its records are at rest.
    """
    working = [record for record in members if record.address in lane.doing] or members
    if lane.has_died:
        return _leave_dead(host, crashed(host, lane, working[0].address), working, members)
    users: list[str] = []
    with suppress(KernelError):  # who uses it is for the message only
        for record in working:
            users += (lane.find_users or partial(find_users, host, record.address))()
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


def _leave_dead(
    host: Host, error: KernelCrashError, working: Sequence[Record], members: Sequence[Record]
) -> KernelCrashError:
    """The device that the kernel crashed at rests as it is; the others of its lane can be recovered."""
    with host.ledger.transaction() as transaction:
        for record in members:
            reason = reason_of(error) if record in working else f"stopped half way: {error}"
            transaction.update(record, record._replace(op=None, stuck=reason))
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
