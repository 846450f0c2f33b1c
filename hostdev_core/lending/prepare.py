"""Prepare devices for a domain: look, decide, claim, carry out the steps, activate; or undo all of it.

`detach` of one device is a prepare without a domain: its device ends on the inactive list.
"""

import logging
from collections.abc import Callable, Hashable, Mapping
from functools import partial

import attrs

from hostdev_core.backend import CheckedBackend, Lender
from hostdev_core.bus.pci import read_group
from hostdev_core.checks import domain_arguments
from hostdev_core.errors import HostdevError, StateError
from hostdev_core.inventory.drift import check_there, explain
from hostdev_core.ledger.store import now
from hostdev_core.lending.claim import claim, find_claims, must
from hostdev_core.lending.nodes import try_out, wait_for_node
from hostdev_core.lending.recovery import past_unfinished
from hostdev_core.lending.restore import Restore
from hostdev_core.lending.stuck import mark_late, reason_of, revert_records
from hostdev_core.lending.writer import Writer, after_load, by_lane, load_stubs
from hostdev_core.model.assignment import Assignment
from hostdev_core.model.device import Device
from hostdev_core.model.domain import Hostdev
from hostdev_core.model.near import near_to
from hostdev_core.model.plan import AnyStep, BackendStep, DevicePlan, Plan, Step
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.planner import look_and_decide
from hostdev_core.planning.request import Decision, Request
from hostdev_core.runtime.all_or_nothing import add_change
from hostdev_core.runtime.lane_report import raise_first
from hostdev_core.runtime.lanes import Lane, run_lanes
from hostdev_core.runtime.operation import Operation

ATTEMPTS = 3
log = logging.getLogger("hostdev")


@attrs.define(eq=False)
class Prepare:
    """One prepare, or one detach: the request, and the state that its undo needs."""

    lender: Lender
    request: Request
    _hostdevs: dict[tuple[str, str], Hostdev] = attrs.field(factory=dict[tuple[str, str], Hostdev])
    _told: tuple[Device, ...] | None = None  # of which plugins were told, if they were
    _called: list[str] = attrs.field(factory=list[str])
    _lanes: dict[tuple[str, str], Lane] = attrs.field(factory=dict[tuple[str, str], Lane])
    _claimed: list[Record] = attrs.field(factory=list[Record])
    # Records that changed when their stub's module was loaded; the activated ones, with those before.
    _loaded: dict[tuple[str, str], Record] = attrs.field(factory=dict[tuple[str, str], Record])
    _lent: dict[Record, Record] = attrs.field(factory=dict[Record, Record])
    _shared: frozenset[int | None] = frozenset()  # groups that the domain had before

    def run(self) -> tuple[Assignment, ...]:
        """Lend all devices of the request, or none; returns one assignment per hostdev, in their order."""
        host = self.lender.host
        host.check_permitted()
        host.ledger.create()
        for _ in range(ATTEMPTS):
            decision = self._decide_freely()
            # A load may bind a device without a driver: that one is claimed first, and loads in a lane.
            if decision.plan.loads and not _has_idle(decision.plan):
                load_stubs(host, self.request.what, decision.plan)
                decision = self._decide_freely()
            if not decision.plan.devices and not decision.plan.upgrades:
                return self._assignments(decision)
            with Operation.start(host.state_dir, self.request.what) as operation:
                try:
                    records = claim(self.lender, operation, decision)
                    lent = None if records is None else self._lend_all(operation, decision, records)
                except BaseException as error:  # of any type: an interrupt must be undone, too
                    self._failed(operation, error)
                    raise
            if lent is not None:
                add_change(self)
                return lent
        raise StateError(
            f"{self.request.what}: the devices changed under {ATTEMPTS} attempts; see who binds them"
        )

    def _decide_freely(self) -> Decision:
        """Look and decide, after recovering records of dead operations that are in the way."""
        lender = self.lender
        return past_unfinished(lender, lambda: look_and_decide(lender, self.request))

    def take_back(self, error: BaseException) -> None:
        """Undo a prepare that was done, as the larger call around it has failed; see `Change`."""
        try:
            with Operation.start(self.lender.host.state_dir, self.request.what) as operation:
                self._lent = {
                    new: old._replace(op=old.op and operation.id) for new, old in self._lent.items()
                }
                self._failed(operation, error)
        except HostdevError as problem:
            error.add_note(f"what it had lent stays lent: {reason_of(problem)}")

    def _lend_all(
        self, operation: Operation, decision: Decision, records: list[Record]
    ) -> tuple[Assignment, ...]:
        """Carry out the plan for claimed records, tell the plugins, and activate; the assignments."""
        hooks, domain = self.lender.hooks, self.request.domain
        self._told, self._claimed = decision.devices, records
        self._hostdevs = {(d.kind, d.name): h for h, d in decision.pairs if d is not None}
        self._shared = self._groups_had(decision)
        for warning in decision.told:
            log.warning("%s", warning)
        hooks.before_prepare(domain, decision.devices, self._called)
        self._carry_out(operation, decision, records)
        hooks.after_prepare(domain, decision.devices)
        # Plugins take time: a device may have been unplugged, or replaced, meanwhile.
        check_there(self.lender.host, records)
        assignments = self._assignments(decision)
        self._activate(operation, decision, records)
        operation.done = True
        return assignments

    def _groups_had(self, decision: Decision) -> frozenset[int | None]:
        """The IOMMU groups of the devices that the domain has already."""
        host, inventory = self.lender.host, decision.inventory
        mine = filter(self.request.is_own, (inventory.records or {}).values())
        return frozenset(r.group for r in mine if inventory.owns_place(host, r))

    def _assignments(self, decision: Decision) -> tuple[Assignment, ...]:
        """Build the assignments, in the hostdevs' order, once the nodes that their guest opens are there."""
        if not self.request.is_for_guest:
            return ()
        host, backend = self.lender.host, self._backend()
        assignments = tuple(self._assignment(*pair) for pair in decision.pairs)
        for each in assignments:
            wait_for_node(host, each, partial(check_there, host, self._claimed))
        # A check only: nothing is lent that the backend has no arguments for.
        domain_arguments(backend.driver, assignments, backend.context)
        return assignments

    def _assignment(self, hostdev: Hostdev, device: Device | None) -> Assignment:
        """Build the assignment of one hostdev, whose device is on its stub now; None: it is missing."""
        if device is None:
            return Assignment(
                hostdev, None, missing=f"there is no {hostdev.kind.upper()} device {hostdev}"
            )
        lent: Device = self.lender.host.buses[device.kind].lent(device, hostdev)
        device = lent._replace(used_by=self.request.owner, phase="active", stuck=None)
        backend = self._backend(hostdev)
        node = backend.node(device)
        return Assignment(hostdev, device, node, backend.arguments(device, node))

    def _backend(self, hostdev: Hostdev | None = None) -> CheckedBackend:
        return self.lender.backend.about(self.request.domain, hostdev)

    def _failed(self, operation: Operation, error: BaseException) -> None:
        """Undo the operation's changes, then tell the plugins; a failure of it becomes a note of `error`."""
        operation.done = False
        try:
            self._undo(operation, error)
        except Exception as problem:
            error.add_note(f"the undo stopped: {reason_of(problem)}")
        finally:
            if self._told is not None:
                hooks = self.lender.hooks
                hooks.prepare_failed(self.request.domain, self._told, error, self._called)

    def _carry_out(self, operation: Operation, decision: Decision, records: list[Record]) -> None:
        """Carry out the steps of all lanes, in parallel; after one has failed, none begins another step."""
        host, lanes = self.lender.host, by_lane(records)
        steps = {device.record.key: device for device in decision.plan.devices}
        writer = Writer(host, operation.fd, decision.dependents)
        jobs: dict[Hashable, Callable[[Lane], object]] = {
            key: partial(
                self._lend, operation=operation, writer=writer, members=members, steps=steps
            )
            for key, members in lanes.items()
            if host.buses[members[0].kind].has_steps
        }
        listen = host.listen_to_kernel
        report = run_lanes(jobs, operation=operation, all_or_none=True, listen=listen)
        overdue = [mark_late(host, lane, lanes[key]) for key, lane in report.late.items()]
        for error in overdue:
            raise error
        raise_first(report)

    def _lend(
        self,
        lane: Lane,
        *,
        operation: Operation,
        writer: Writer,
        members: list[Record],
        steps: Mapping[tuple[str, str], DevicePlan],
    ) -> None:
        """Carry out the steps of one lane, and try its VFIO groups, in the lane's thread."""
        host = self.lender.host
        self._lanes |= {record.key: lane for record in members}
        try:
            for index in range(len(members)):
                self._lend_one(lane, writer, members, index, [*steps[members[index].key].steps])
            lane.check()
            if self.lender.backend.driver.tries_vfio and self.request.owner is not None:
                try_out(host, lane, members, self._shared)
                lane.check()
        except BaseException:
            if lane.overdue:  # the call has returned without it: nobody else restores its devices
                Restore(self.lender, operation).restore_lane(lane, members)
            raise

    def _lend_one(
        self, lane: Lane, writer: Writer, members: list[Record], index: int, todo: list[AnyStep]
    ) -> None:
        """Carry out the steps of one member; a loaded module may change its record and its steps."""
        host, record = self.lender.host, members[index]
        # From here on a write is made below the device's own directory, or not at all.
        check_there(host, [record])
        try:
            while todo:
                self._do(lane, writer, record, step := todo.pop(0))
                if type(step) is Step and step.action == "load":
                    lane.check()
                    record, todo = after_load(lane, host, record, f"{step.value}", todo)
                    members[index] = self._loaded[record.key] = record
        except HostdevError as error:
            explain(host, record, error)
            raise
        check_there(host, [record])

    def _do(self, lane: Lane, writer: Writer, record: Record, step: AnyStep) -> None:
        """Carry out one step, unless another lane has failed or the device is not there any more."""
        lane.check()
        if type(step) is Step:
            writer.carry_out(lane, step, record)
        elif isinstance(step, BackendStep):
            check_there(self.lender.host, [record])
            backend = self._backend(self._hostdevs.get(record.key))
            writer.run(lane, str(step), partial(backend.run_step, step))

    def _activate(self, operation: Operation, decision: Decision, records: list[Record]) -> None:
        """Record all devices, and siblings that are named now, as lent in one transaction."""
        plan, moment = decision.plan, now()
        phase = Phase.INACTIVE if self.request.domain is None else Phase.ACTIVE
        upgrades = {
            old: self._upgraded(old, hostdev)
            for hostdev, device in decision.pairs
            for old in plan.upgrades
            if device is not None and old.key == (device.kind, device.name)
        }
        taken = [self._loaded.get(record.key, record) for record in records]
        buses = self.lender.host.buses
        bare = [old for old in taken if old.group is None and buses[old.kind].has_steps]
        grouped = {old: self._grouped(old) for old in bare}
        # Before the commit: an interrupt right after it must find them.
        lent = {
            old: grouped.get(old, old)._replace(phase=phase, op=None, since=moment) for old in taken
        }
        self._lent = {new: old for old, new in (upgrades | lent).items()}
        with self.lender.host.ledger.transaction() as transaction:
            resting = (*plan.present, *plan.upgrades)
            known = transaction.near(near_to(resting)) if resting else {}
            for old in resting:
                must(known.get(old.key) == old, old)
            for old, new in (upgrades | grouped).items():
                must(transaction.update(old, new), old)
            must(transaction.settle(operation.id, phase, moment) == len(taken), *taken)

    def _grouped(self, record: Record) -> Record:
        """Add a record's IOMMU group, as VFIO's no-IOMMU mode makes one when it binds the device."""
        return record._replace(group=read_group(self.lender.host.sysfs, record.address))

    def _upgraded(self, old: Record, hostdev: Hostdev) -> Record:
        """Change a sibling's record to lent by name; a UUID that only one of the two owners has is kept."""
        owner = self.request.owner
        return old._replace(
            phase=Phase.ACTIVE,
            handed=True,
            stuck=None,
            owner=owner if owner is not None and owner.uuid is not None else old.owner,
            allowed=" ".join(sorted(hostdev.allow)),
            since=now(),
        )

    def _undo(self, operation: Operation, error: BaseException) -> None:
        """Restore all devices of the operation, but those of late lanes; failures become notes of `error`."""
        host = self.lender.host
        if self._lent:  # interrupted in the very last moment
            revert_records(host, self._lent)
        records = find_claims(host, operation, self._claimed)
        mine = [record for record in records if not self._is_left(record)]
        for address, reason in Restore(self.lender, operation).restore(mine).errors.items():
            error.add_note(f"{address} could not be given back and is stuck: {reason_of(reason)}")

    def _is_left(self, record: Record) -> bool:
        """Whether a record is left to its late lane, which restores the devices that it was lending."""
        lane = self._lanes.get(record.key)
        return lane is not None and (not lane.ended or lane.failed_late)


def _has_idle(plan: Plan) -> bool:
    """Whether a plan takes a device without a driver, which loading a module may bind."""
    records = [d.record for d in plan.devices if d.record.found.kernel_driver is None]
    return any(record.stub is not None for record in records)
