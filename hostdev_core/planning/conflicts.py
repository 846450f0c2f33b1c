"""Conflicts: which record is in the way of a claim, whether it can be cleared away, and the error.

The one answer for the planner, the claim and a reset. Whether an operation is alive is asked of its lock;
all else is decided over records.
"""

from collections.abc import Callable, Iterable, Mapping

from hostdev_core.errors import DeviceInUseError, NotAssignableError
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.words import ends, way_out
from hostdev_core.runtime import operation as operations

SAME_OWNER = "what it has already is no error with --same-owner (PrepareFlags.ALLOW_SAME_OWNER)"
# The reason in the ledger begins so for a device that only a reboot frees; `is_crashed` looks for it.
CRASHED = "the kernel crashed"
OwnsPlace = Callable[[Record], bool]


class UnfinishedError(DeviceInUseError):
    """Only the record of a dead operation is in the way; any call that changes something recovers it."""

    def __init__(self, message: str, *, device: str, record: Record) -> None:
        super().__init__(message, device=device, used_by=record.owner, rule="lent")
        self.record = record


class VoidRecordError(UnfinishedError):
    """Only a record whose device is gone is in the way of the one that is at its address now."""


def check_free(
    state_dir: str,
    wanted: Record,
    records: Mapping[tuple[str, str], Record],
    owns_place: OwnsPlace,
    since: Callable[[Record], str | None] = lambda _: None,
) -> None:
    """Raise DeviceInUseError where a record is in the way of a claim of one device.

    UnfinishedError where recovering that record would clear it away. `since` tells, in words for the
    message, how the device of the record in the way has changed since it was lent.
    """
    other = find_conflict(wanted, records, owns_place)
    if other is not None:
        raise _in_the_way(state_dir, wanted, other, records.values(), owns_place, since(other))


def _always(record: Record) -> bool:
    return True


def find_conflict(
    wanted: Record, records: Mapping[tuple[str, str], Record], owns_place: OwnsPlace = _always
) -> Record | None:
    """Find the record that is in the way of a claim.

    The same device; another owner in the same IOMMU group; a PF with a claimed VF and the reverse;
    a USB device whose controller is claimed and the reverse. `owns_place` is asked only where
    it matters: a record whose device is gone has no group, PF or controller any more.
    """
    for record in records.values():
        if _conflicts(wanted, record, owns_place):
            return record
    return None


def _conflicts(wanted: Record, other: Record, owns_place: OwnsPlace) -> bool:
    # A device on the inactive list may be claimed again, by a claim that knows of that.
    if wanted[:2] == other[:2]:  # their keys
        return not (other.phase is Phase.INACTIVE and other.op is None and wanted.listed)
    return _meet(wanted, other) and owns_place(other)


def _meet(wanted: Record, other: Record) -> bool:
    """Whether two records exclude each other by the places of their devices: group, PF, controller."""
    # VFIO gives a group to one user only; the same domain may have several of its members.
    if wanted.group is not None and wanted.group == other.group:
        same = (
            wanted.owner is not None
            and other.owner is not None
            and wanted.owner.is_same_owner(other.owner)
        )
        if (other.owner is not None and not same) or other.op is not None or is_unfinished(other):
            return True
    # Virtual functions go when their PF changes hands, and USB devices when their controller does.
    return other.address in (wanted.physfn, wanted.controller) or wanted.address in (
        other.physfn,
        other.controller,
    )


def check_together(records: Iterable[Record]) -> None:
    """Refuse a request for two devices of which one takes the other along (a controller and its devices)."""
    known = [*records]
    named = {record.address: record for record in known}
    for record in known:
        other = named.get(record.physfn or "") or named.get(record.controller or "")
        if other is not None:
            raise NotAssignableError(
                f"{record.address} and {other.address} cannot be lent together: one takes the other"
                " along; name one of them",
                device=record.address,
                rule="together",
            )


def is_orphaned(record: Record, records: Iterable[Record], owns_place: OwnsPlace = _always) -> bool:
    """Whether a sibling stays on its stub for an IOMMU group without a user, or is gone itself."""
    # A stuck one is unfinished instead: a restore of it has failed.
    if record.handed or record.group is None or record.op is not None or record.stuck is not None:
        return False
    if record.phase not in {Phase.ACTIVE, Phase.RELEASING}:
        return False
    others = (r for r in records if r.group == record.group and r.owner is not None)
    used = any((other.op is not None or other.handed) and owns_place(other) for other in others)
    return not used or not owns_place(record)


def is_void(record: Record, owns_place: OwnsPlace) -> bool:
    """Whether a domain's record is about a device that is gone: another device may have its address.

    A record of the inactive list never is: a person detached that device, and decides about the record.
    """
    return record.owner is not None and record.op is None and not owns_place(record)


def is_unfinished(record: Record) -> bool:
    """Whether a record stands half way: only an operation that is alive may have it so."""
    return record.phase in {Phase.PREPARING, Phase.RELEASING} and (
        record.op is not None or record.stuck is not None
    )


def is_crashed(record: Record) -> bool:
    """Whether the kernel keeps this device's lock for ever: a call that asks for it never returns."""
    return record.stuck is not None and record.stuck.startswith(CRASHED)


def is_lost(
    state_dir: str, record: Record, records: Iterable[Record], owns_place: OwnsPlace
) -> bool:
    """Whether a record is to be recovered: neither a living operation nor its group's user needs it."""
    if is_orphaned(record, records, owns_place):
        return True
    if not is_unfinished(record) or is_crashed(record):  # its lock is kept till a reboot
        return False
    return not is_at_work(state_dir, record)


def is_at_work(state_dir: str, record: Record) -> bool:
    """Whether a living operation is at work on a record."""
    return record.op is not None and operations.is_alive(state_dir, record.op)


def at_work_error(state_dir: str, record: Record, then: str) -> DeviceInUseError:
    """Build the error for a call that must wait for the operation at work on a record; `then`: the advice."""
    return DeviceInUseError(
        f"{record.address} is at work: {operations.describe(state_dir, record.op or '')}; {then}",
        device=record.address,
        used_by=record.owner,
        rule="lent",
    )


def _in_the_way(
    state_dir: str,
    wanted: Record,
    other: Record,
    records: Iterable[Record],
    owns_place: OwnsPlace,
    since: str | None,
) -> DeviceInUseError:
    """Build the error for a claim that `other` stands in the way of.

    VoidRecordError or UnfinishedError where a recovery would clear it away, else DeviceInUseError.
    """
    alive = is_at_work(state_dir, other)
    doing = operations.describe(state_dir, other.op or "") if alive else None
    void = other.key == wanted.key and is_void(other, owns_place)
    then = f"its device is gone: {ends(other)}" if void else way_out(other, doing)
    if not void and other.key == wanted.key and _has_it(wanted, other):
        then = SAME_OWNER
    message = _in_use(wanted.address, other, doing, then=since or then)
    if void:
        return VoidRecordError(message, device=wanted.address, record=other)
    if (is_unfinished(other) and not alive) or is_orphaned(other, records, owns_place):
        return UnfinishedError(message, device=wanted.address, record=other)
    return DeviceInUseError(message, device=wanted.address, used_by=other.owner, rule="lent")


def _has_it(wanted: Record, other: Record) -> bool:
    """Whether the domain that asks has the device already, in good order."""
    if wanted.owner is None or other.owner is None or not wanted.owner.is_same_owner(other.owner):
        return False
    return other.is_lent and other.op is None and other.stuck is None


def _in_use(wanted: str, record: Record, doing: str | None, *, then: str | None) -> str:
    """Word the message about a record in the way of a claim of the device `wanted`; `then`: the advice."""
    user = str(record.owner) if record.owner else "the inactive list"
    if doing is not None:
        state = f"at work: {doing}"
    elif record.stuck:
        state = f"stuck: {record.stuck}"
    else:
        state = f"in use by {user}" if record.owner else "on the inactive list"
    how = "" if wanted == record.address else f"{wanted} belongs with {record.address}, which is "
    subject = how or f"{wanted} is "
    whose = "" if state.endswith(user) else f" (for {user})"
    return f"{subject}{state}{whose}{f'; {then}' if then else ''}"
