"""Differences between two moments: who follows them knows what stands at the second."""

from hypothesis import given
from hypothesis import strategies as st

from hostdev_core import Event, EventKind, UsedBy
from hostdev_core.watching.differences import ABSENT, Snapshot, Standing, differences

KEYS = st.tuples(st.sampled_from(["pci", "usb"]), st.sampled_from(["a", "b", "c"]))
OWNERS = st.sampled_from([None, UsedBy("vm1", "qemu", "qemu:///system"), UsedBy("vm2", "xl", "x")])
STATES = (
    *("free", "lent", "sibling", "inactive", "preparing", "releasing", "waiting"),
    *("left over", "stuck"),
)
RECORDS = (
    EventKind.LENT,
    EventKind.RETURNED,
    EventKind.DETACHED,
    EventKind.AT_WORK,
    EventKind.STUCK,
)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """As a survey may find a device: without a record it is free, without a directory it has no driver."""
    inode = draw(st.sampled_from([None, 1, 2]))
    found = Standing(inode, held=draw(st.sampled_from([(), ("a (pid 1)",), ("a", "b")])))
    if inode is not None:
        found = found._replace(kernel_driver=draw(st.sampled_from([None, "e1000e", "vfio-pci"])))
    state = draw(st.sampled_from(STATES))
    if state == "free":
        return found
    return found._replace(
        state=state,
        owner=draw(OWNERS),
        reason=draw(st.sampled_from([None, "why"])),
        drift=draw(st.sampled_from([None, "gone: away", "rebound: on e1000e"])),
    )


SNAPSHOTS = st.dictionaries(KEYS, standings(), max_size=6)


def follow(known: Standing, event: Event) -> Standing:
    """What a program knows of a device after an event, by the event alone."""
    match event.kind:
        case EventKind.ADDED:
            return known._replace(inode=1)
        case EventKind.REMOVED:
            return known._replace(inode=None)
        case EventKind.BOUND:
            return known._replace(kernel_driver=event.kernel_driver)
        case EventKind.UNBOUND:
            assert event.kernel_driver == known.kernel_driver
            return known._replace(kernel_driver=None)
        case EventKind.DRIFT:
            return known._replace(drift=event.reason)
        case EventKind.DRIFT_ENDED:
            return known._replace(drift=None)
        case EventKind.HELD:
            return known._replace(held=(event.reason or "",))
        case EventKind.LET_GO:
            return known._replace(held=())
        case _:
            owner = None if event.state == "free" else event.owner
            return known._replace(state=event.state, owner=owner, reason=event.reason)


def told(known: Standing) -> Standing:
    """As much of it as events tell: which device it is they do not."""
    inode = None if known.inode is None else 1
    return known._replace(inode=inode, held=(", ".join(known.held),) if known.held else ())


@given(before=SNAPSHOTS, after=SNAPSHOTS)
def test_all_events_lead_from_one_snapshot_to_the_next(before: Snapshot, after: Snapshot) -> None:
    known = {key: told(standing) for key, standing in before.items()}
    for event in differences(before, after):
        key = (event.bus, event.device)
        known[key] = follow(known.get(key, ABSENT), event)
    assert {key: one for key, one in known.items() if one != ABSENT} == {
        key: told(one) for key, one in after.items() if one != ABSENT
    }


@given(before=SNAPSHOTS, after=SNAPSHOTS)
def test_each_event_tells_something_new(before: Snapshot, after: Snapshot) -> None:
    events = differences(before, after, time=7.0)
    assert differences(after, after) == ()
    assert len({*events}) == len(events)
    assert {event.time for event in events} <= {7.0}
    assert not any(event.initial for event in events)
    for event in events:
        assert event.state == after.get((event.bus, event.device), ABSENT).state


def test_another_device_at_an_address_is_removed_and_added() -> None:
    before = {("pci", "a"): Standing(1, "e1000e")}
    after = {("pci", "a"): Standing(2, "e1000e")}
    kinds = [event.kind for event in differences(before, after)]
    assert kinds == [EventKind.UNBOUND, EventKind.REMOVED, EventKind.ADDED, EventKind.BOUND]


def test_who_had_a_device_is_told_when_it_is_returned() -> None:
    owner = UsedBy("vm1", "qemu", "qemu:///system")
    lent = {("pci", "a"): Standing(1, "vfio-pci", "lent", owner)}
    (event,) = differences(lent, {("pci", "a"): Standing(1, "vfio-pci")})
    assert (event.kind, event.owner, event.state) == (EventKind.RETURNED, owner, "free")
