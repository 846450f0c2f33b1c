"""What stands with each device at a moment, and the events that lead from one moment to the next.

By states, not by counting: what happened and was undone between two looks leaves no event, and no event that
was lost makes a later one wrong.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hostdev_core.model.device import UsedBy
from hostdev_core.watching.events import Event, EventKind

Key = tuple[str, str]

_KINDS = {
    "free": EventKind.RETURNED,
    "waiting": EventKind.RETURNED,  # its domain has given it back
    "lent": EventKind.LENT,
    "sibling": EventKind.LENT,
    "inactive": EventKind.DETACHED,
    "preparing": EventKind.AT_WORK,
    "releasing": EventKind.AT_WORK,
    "stuck": EventKind.STUCK,
    "left over": EventKind.STUCK,
}


class Standing(NamedTuple):
    """What stands with one device: by default one that is not there, and of which nothing is known.

    `inode` tells it from another one at its address; None while none is there. `state`, `owner` and `reason`
    are of its record. `drift` is how record and device disagree, `held` are those who have its node open
    while it is nobody's.
    """

    inode: int | None = None
    kernel_driver: str | None = None
    state: str = "free"
    owner: UsedBy | None = None
    reason: str | None = None
    drift: str | None = None
    held: tuple[str, ...] = ()


Snapshot = Mapping[Key, Standing]
ABSENT = Standing()


def differences(
    before: Snapshot, after: Snapshot, *, time: float = 0.0, initial: bool = False
) -> tuple[Event, ...]:
    """Return the events that lead from one snapshot to another, device by device, PCI first.

    Those of one device are in the order in which they make sense: what ends comes before what begins.
    """
    found: list[Event] = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if old != new:
            bus, device = key
            events = (*_of_device(old, new), *_of_record(old, new), *_of_holders(old, new))
            found += (
                told._replace(device=device, bus=bus, time=time, state=new.state, initial=initial)
                for told in events
            )
    return tuple(found)


def _event(
    kind: EventKind,
    *,
    driver: str | None = None,
    owner: UsedBy | None = None,
    reason: str | None = None,
) -> Event:
    """An event without what all of one device have in common."""
    return Event(kind, "", "", 0.0, "", kernel_driver=driver, owner=owner, reason=reason)


def _of_device(old: Standing, new: Standing) -> Iterator[Event]:
    is_other = old.inode != new.inode
    if old.kernel_driver and (is_other or old.kernel_driver != new.kernel_driver):
        yield _event(EventKind.UNBOUND, driver=old.kernel_driver)
    if is_other and old.inode is not None:
        yield _event(EventKind.REMOVED)
    if is_other and new.inode is not None:
        yield _event(EventKind.ADDED)
    if new.kernel_driver and (is_other or old.kernel_driver != new.kernel_driver):
        yield _event(EventKind.BOUND, driver=new.kernel_driver)


def _of_record(old: Standing, new: Standing) -> Iterator[Event]:
    if old.drift is not None and new.drift is None:
        yield _event(EventKind.DRIFT_ENDED)
    if (old.state, old.owner, old.reason) != (new.state, new.owner, new.reason):
        owner = new.owner or (old.owner if new.state == "free" else None)
        yield _event(_KINDS[new.state], owner=owner, reason=new.reason)
    if new.drift not in {None, old.drift}:
        yield _event(EventKind.DRIFT, owner=new.owner, reason=new.drift)


def _of_holders(old: Standing, new: Standing) -> Iterator[Event]:
    if old.held and not new.held:
        yield _event(EventKind.LET_GO)
    elif old.held != new.held:
        yield _event(EventKind.HELD, reason=", ".join(new.held))
