"""Decide about one request: find its devices, check everything, make the plan. Nothing is written."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import attrs

from hostdev_core.backend import Lender
from hostdev_core.errors import DuplicateDeviceError, HostdevError, NotAssignableError
from hostdev_core.inventory.drift import check_recorded
from hostdev_core.inventory.inventory import Inventory, Key, look_near
from hostdev_core.inventory.unrecorded import warn_of_plan
from hostdev_core.model.device import Device
from hostdev_core.model.domain import Hostdev, PrepareFlags
from hostdev_core.model.plan import DevicePlan, Plan
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.words import replug_words
from hostdev_core.planning import conflicts
from hostdev_core.planning.claim_only import ClaimPlanner
from hostdev_core.planning.module_loads import check_loads
from hostdev_core.planning.pci import PCIPlanner
from hostdev_core.planning.request import Decision, Question, Request, State
from hostdev_core.planning.risks import check_risks
from hostdev_core.planning.usb import USBPlanner

LOOKS = 3


class BusPlanner(Protocol):
    """Plans for the devices of one bus: finds them, reads them, and gives each a record and steps.

    It leaves the state of each in the question, and reads that again after the claim.
    """

    def resolve(self, question: Question, hostdev: Any) -> Device | None: ...

    def read(self, question: Question, hostdev: Any, device: Any) -> Device: ...

    def plan(self, question: Question, pairs: Sequence[Any]) -> list[DevicePlan]: ...

    def read_again(self, decision: Decision, keys: Sequence[Key]) -> dict[Key, State]: ...


class _Found(NamedTuple):
    """A hostdev, its device, and the device's key in the ledger."""

    hostdev: Hostdev
    device: Device
    key: tuple[str, str]


def look_and_decide(lender: Lender, request: Request) -> Decision:
    """Look at what is asked for, and decide over that: see `decide`.

    The ledger is read before the devices: one that another call takes in between shows as nobody's, and
    half way to its stub. So a refusal counts only if the ledger is still as it was; else look again.
    """
    inventory = look_near(lender.host, request.hostdevs)
    for _ in range(LOOKS - 1):
        try:
            return decide(lender, request, inventory)
        except NotAssignableError:
            again = look_near(lender.host, request.hostdevs)
            if again.records == inventory.records:
                raise
            inventory = again
    return decide(lender, request, inventory)


def decide(
    lender: Lender,
    request: Request,
    inventory: Inventory,
    refused: list[HostdevError] | None = None,
) -> Decision:
    """Find and check the devices of a request, and plan for them; nothing is changed.

    The first refusal is raised; those that `allow` can pass, the core's and the plugins', all together.
    With `refused`, each is added to it, and no decision with one in it may be carried out.
    """
    question = Question(lender, request, inventory, refused=refused)
    pairs = tuple([(h, _planner(h.kind).resolve(question, h)) for h in request.hostdevs])
    found = [_Found(h, d, (h.kind, d.name)) for h, d in pairs if d is not None]
    _check_duplicates([each.key[1] for each in found])
    present, upgrades, fresh = _sort(question, found)
    read = {
        each.key: _planner(each.key[0]).read(question, each.hostdev, each.device) for each in fresh
    }
    # The pairs with the devices as read now: a USB device has its serial by this.
    again = iter([read.get(each.key, each.device) for each in found])
    pairs = tuple([(h, d and next(again)) for h, d in pairs])
    plans = _plan(question, [(each.hostdev, read[each.key]) for each in fresh])
    conflicts.check_together([device.record for device in plans])
    missing = tuple(str(hostdev) for hostdev, device in pairs if device is None)
    plan = Plan(request.owner, tuple(plans), tuple(present), tuple(upgrades), missing)
    question.ask((check_loads, (lender.host, lender.backend.stubs, plan, question.warn)))
    decision = Decision(plan, question, pairs, _taken(plan, inventory))
    said, vain, dependents = check_risks(question, decision)
    unrecorded = (*warn_of_plan(plans),)
    warnings = (*question.warnings, *unrecorded, *said, *vain)
    plan = attrs.evolve(plan, warnings=warnings)
    told = (*unrecorded, *vain)
    return attrs.evolve(decision, plan=plan, dependents=dependents, told=told)


def _plan(question: Question, taken: Sequence[tuple[Hostdev, Device]]) -> list[DevicePlan]:
    """Plan the devices that are to be taken, bus by bus, PCI first."""
    return [
        plan
        for kind in dict.fromkeys(("pci", *(h.kind for h, _ in taken)))
        for plan in _planner(kind).plan(question, [pair for pair in taken if pair[0].kind == kind])
    ]


def is_as_planned(decision: Decision) -> bool:
    """Read the devices of a decision again: whether all that it went by is so still.

    To be asked once they are claimed, and no other call may take them. Raises what has come since and keeps
    a device from being lent.
    """
    planned = decision.question.states
    keys: dict[str, list[Key]] = {}
    for key in planned:
        keys.setdefault(key[0], []).append(key)
    question = decision.question
    check_loads(question.host, question.lender.backend.stubs, decision.plan, question.warn)
    again = [_planner(kind).read_again(decision, some) for kind, some in keys.items()]
    return all(planned[key] == state for states in again for key, state in states.items())


def _taken(plan: Plan, inventory: Inventory) -> tuple[Device, ...]:
    """The devices that a plan takes, in the order of a listing."""
    keys = {each.record.key for each in plan.devices} | {r.key for r in plan.upgrades}
    return tuple(
        [
            device
            for kind, found in inventory.by_kind.items()
            for name, device in found.items()
            if (kind, name) in keys
        ]
    )


def _check_duplicates(names: Sequence[str]) -> None:
    """Raise DuplicateDeviceError when a device is named twice."""
    if len(names) != len(set(names)):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise DuplicateDeviceError(f"{twice} is asked for twice; name each device once")


def _sort(
    question: Question, found: Iterable[_Found]
) -> tuple[list[Record], list[Record], list[_Found]]:
    """Sort devices into those that the owner has already, those it has as siblings, and those to take.

    DeviceInUseError for one to take that is not free.
    """
    present: list[Record] = []
    upgrades: list[Record] = []
    fresh: list[_Found] = []
    for each in found:
        record = question.inventory.record_at_address(each.key)
        if record is not None and _is_mine(question.request, record):
            # No step is planned for it: it must still be the same device, on its stub.
            check_recorded(question.host, record, each.device)
            (present if _is_present(record) else upgrades).append(record)
        else:
            # Of one that somebody has nothing more is read: the kernel may be at work on it.
            if question.ask((_check_free, (question, each.device, each.key))):
                fresh.append(each)
    return present, upgrades, fresh


def _is_mine(request: Request, record: Record) -> bool:
    # Not at rest: `_check_free` reports it.
    if record.op is not None or record.stuck is not None:
        return False
    if request.owner is None:
        return record.phase is Phase.INACTIVE
    return (
        record.owner is not None
        and record.phase in {Phase.ACTIVE, Phase.RELEASING}
        and request.owner.is_same_owner(record.owner)
        and (not record.handed or PrepareFlags.ALLOW_SAME_OWNER in request.flags)
    )


def _is_present(record: Record) -> bool:
    return record.handed and record.phase is not Phase.RELEASING


def _check_free(question: Question, device: Device, key: tuple[str, str]) -> None:
    """Raise DeviceInUseError, by the records of this look, for a device that a claim could not get."""
    if not question.inventory.records:
        return
    record = question.inventory.record_at_address(key)
    wanted = Record(
        *key,
        Phase.PREPARING,
        question.lender.backend.name,
        owner=question.request.owner,
        listed=record is not None and record.phase is Phase.INACTIVE and record.op is None,
        **question.host.buses[key[0]].place(device),
    )
    records = dict(question.inventory.records or {})
    old = records.get(key)
    if old is not None and conflicts.is_void(old, question.owns_place) and not old.left_traces:
        del records[key]  # the claim ends it

    def since(other: Record) -> str | None:
        return replug_words(other) if other.key in question.inventory.replugged else None

    conflicts.check_free(question.host.state_dir, wanted, records, question.owns_place, since)


_PLANNERS: dict[str, BusPlanner] = {"pci": PCIPlanner(_check_free), "usb": USBPlanner()}
_CLAIM_PLANNER = ClaimPlanner()


def _planner(kind: str) -> BusPlanner:
    """The planner for devices of a kind: by the claim alone, for a bus that has none of its own here."""
    return _PLANNERS.get(kind, _CLAIM_PLANNER)
