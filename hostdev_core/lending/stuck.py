"""Record in the ledger why a device is stuck or late, so that status and later calls can name the reason."""

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
from hostdev_core.model.near import near_to
from hostdev_core.model.record import Record
from hostdev_core.planning.conflicts import CRASHED
from hostdev_core.runtime.lanes import Lane


def crashed(host: Host, lane: Lane, address: str) -> KernelCrashError:
    """Build the error for a write in which the kernel crashed, with the lines of its log about that."""
    lines = [] if lane.thread is None else lane.kernel.oops(lane.thread)
    lane.kernel.close()  # its thread, which would have closed it, never returns
    told = f" (kernel: {'; '.join(lines)})" if lines else ""
    return KernelCrashError(
        f"{CRASHED} in this: {lane.doing}{told}; it keeps the device locked, and only a reboot frees it",
        path=host.sysfs.path(lane.path),
        value=address,
    )


def mark_late(host: Host, lane: Lane, members: Sequence[Record]) -> KernelTimeoutError:
    """Record the reason for a lane that is late, as its write has not returned; returns it as an error.

    It names the users of the device, as far as they can be found. The records stay with the operation,
    which lives until the write returns. The thread of a lane that has died never returns: its records
    leave the operation.
    """
    working = [record for record in members if record.address in lane.doing] or members
    if lane.has_died:
        return _mark_dead(host, crashed(host, lane, working[0].address), working, members)
    users: list[str] = []
    with suppress(KernelError):  # the users are for the message only
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


def _mark_dead(
    host: Host, error: KernelCrashError, working: Sequence[Record], members: Sequence[Record]
) -> KernelCrashError:
    """Record a crash: its device stays as it is, and the other devices of the lane can be recovered.

    Only the reason of the first begins with CRASHED: recovery leaves that one alone. Returns `error`.
    """
    with host.ledger.transaction() as transaction:
        for record in members:
            reason = reason_of(error) if record in working else f"stopped half way: {error}"
            transaction.update(record, record._replace(op=None, stuck=reason))
    return error


def mark_stuck(host: Host, record: Record, error: Exception) -> None:
    """Record that a device is stuck, with the reason, and take its record from the operation.

    When the ledger cannot be written, the error gets a note, and the record stays unfinished.
    """
    try:
        with host.ledger.transaction() as transaction:
            transaction.update(record, record._replace(op=None, stuck=reason_of(error)))
    except HostdevError as problem:
        error.add_note(f"nor could that be recorded: {problem}")


def revert_records(host: Host, changes: Mapping[Record, Record | None]) -> None:
    """Revert these changes (new record: old record; None: there was none) in one transaction.

    A record that somebody has changed since stays as it is.
    """
    with host.ledger.transaction() as transaction:
        known = transaction.near(near_to(changes))
        for record in [record for record in known.values() if record in changes]:
            old = changes[record]
            transaction.update(record, old) if old else transaction.delete(record)


def reason_of(error: BaseException) -> str:
    """Put an error and its notes on one line; an error of a foreign type begins with its type."""
    told = isinstance(error, (HostdevError, OSError)) and str(error)
    text = told or f"{type(error).__name__}: {error}"
    notes: tuple[str, ...] = tuple(getattr(error, "__notes__", ()))
    return printable(" ".join((text, *notes)).replace("\n", " "))
