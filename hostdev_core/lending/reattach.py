"""Reattach devices: claim an owner's records, guard and restore the devices, report all that failed."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

import attrs

from hostdev_core.backend import Caller
from hostdev_core.bus.bus import SAME
from hostdev_core.errors import (
    DeviceInUseError,
    DeviceNotFoundError,
    ReattachError,
    StateError,
)
from hostdev_core.inventory.drift import check_seen, owns_place
from hostdev_core.inventory.held_records import find_gone, find_held
from hostdev_core.inventory.inventory import look, with_record
from hostdev_core.ledger.transaction import Transaction
from hostdev_core.lending.restore import Restore
from hostdev_core.lending.stuck import revert_records
from hostdev_core.model.assignment import PLUGIN, Outcome, Returned
from hostdev_core.model.device import Device, UsedBy
from hostdev_core.model.domain import Domain, Hostdev
from hostdev_core.model.near import Near, near_to
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.words import gives_back
from hostdev_core.planning.conflicts import at_work_error, is_at_work, is_crashed
from hostdev_core.runtime.operation import Operation


@attrs.define(eq=False)
class Reattach:
    """One reattach: of a domain's devices (`owner`), or of one that was detached by hand (no owner).

    `hostdevs` narrows it to those of the domain's records that they mean; `key` names the detached
    device.
    """

    caller: Caller
    what: str
    owner: UsedBy | None = None
    domain: Domain | None = None
    hostdevs: tuple[Hostdev, ...] | None = None
    key: tuple[str, str] | None = None
    errors: dict[str, Exception] = attrs.field(factory=dict[str, Exception])
    _not_held: tuple[str, ...] = ()
    _waiting: list[str] = attrs.field(factory=list[str])
    _listed: list[str] = attrs.field(factory=list[str])
    _taken: dict[Record, Record | None] = attrs.field(factory=dict[Record, Record | None])

    def run(self) -> Returned:
        """Try every device, and return the addresses of those that are restored.

        Raises ReattachError with one error for each device that is not; NotAssignableError, with
        nothing changed, when a hostdev means several devices.
        """
        host = self.caller.host
        mine = self._mine(host.ledger.read(self._known) or ())
        # Before the check of rights: with nothing to give back, the call writes nothing.
        if not mine:
            return Returned(not_held=self._not_held)
        host.check_permitted()
        check_seen(host, mine)
        with Operation.start(host.state_dir, self.what) as operation:
            outcome = self._restore(operation)
            operation.done = True
        return self._answer(attrs.evolve(outcome, errors={**self.errors, **outcome.errors}))

    def _answer(self, outcome: Outcome) -> Returned:
        """Add the devices that wait, are gone or freed to an outcome; ReattachError when a device failed."""
        facts = {"waiting": self._waiting, "not_held": self._not_held}
        facts |= find_gone(self.caller.host, outcome.restored)
        freed = [each for each in outcome.freed if each[0] in facts["replaced"]]
        try:
            return Returned((*outcome.raised(), *self._listed), **facts, freed=freed)
        except ReattachError as error:
            error.returned = Returned((*error.returned, *self._listed), **facts, freed=freed)
            raise

    def _restore(self, operation: Operation) -> Outcome:
        """Claim, guard and restore; an interrupt before the first restore puts all records back."""
        host, restore = self.caller.host, Restore(self.caller, operation)
        with ExitStack() as stack:
            try:
                with host.ledger.transaction() as transaction:
                    work = self._claim(transaction, operation)
                devices = self._devices(work)
                guarded = stack.enter_context(restore.guarded(work, devices))
                leaving = _those(devices, guarded.records)
                hooks = self.caller.hooks
                problems = hooks.before_reattach(self.domain, leaving) if leaving else []
            except BaseException:  # no device was touched: their guests have them as before
                revert_records(host, self._taken)
                raise
            outcome = restore.go(guarded)
        if work:
            back = _those(devices, outcome.restored)
            problems += hooks.after_reattach(self.domain, back, outcome.errors)
        return attrs.evolve(outcome, errors=_with_problems(outcome.errors, problems))

    def _mine(self, records: Sequence[Record]) -> list[Record]:
        """The records that this call is to give back, in the ledger's order."""
        if self.owner is None:
            return [r for r in records if r.owner is None and r.key == self.key]
        own = [r for r in records if r.owner is not None and self.owner.is_same_owner(r.owner)]
        if self.hostdevs is None:
            return own
        found = [(h, find_held(self.caller.host, h, own, self._present)) for h in self.hostdevs]
        self._not_held = tuple(str(hostdev) for hostdev, record in found if record is None)
        keys = {record.key for _, record in found if record is not None}
        return [record for record in own if record.key in keys]

    def _known(self, records: Transaction) -> list[Record]:
        """The records among which this call finds its own."""
        if self.owner is not None:
            return records.of_domain(self.owner.domain)
        names = frozenset([self.key[1]] if self.key is not None else ())
        return [*records.near(Near(names)).values()]

    def _present(self) -> list[Device]:
        return [*look(self.caller.host, texts=True).devices]

    def _claim(self, transaction: Transaction, operation: Operation) -> list[Record]:
        """Claim the records of the devices to restore; one that a living operation has is an error."""
        host, mine = self.caller.host, list[Record]()
        own = self._mine(self._known(transaction))
        records = [*transaction.near(near_to(own)).values()]
        for record in own:
            if is_at_work(host.state_dir, record):
                then = "try again when it has ended"
                self.errors[record.address] = at_work_error(host.state_dir, record, then)
            # Its lock is kept till a reboot: a restore would hang, too.
            elif is_crashed(record):
                self.errors[record.address] = StateError(f"{record.address}: {record.stuck}")
            else:
                mine.append(record)
        work = self._split(transaction, records, mine)
        return [self._take(transaction, operation, record) for record in work]

    def _split(
        self, transaction: Transaction, records: Sequence[Record], mine: Sequence[Record]
    ) -> list[Record]:
        """Choose the records to restore now: no other device of their IOMMU group is lent.

        The other devices leave their domain, and wait on their stub for the group: VFIO needs all of its
        members off their host drivers. Siblings that are orphaned by this are added.
        """
        host, keys = self.caller.host, {record.key for record in mine}
        gone = {record.key for record in mine if not owns_place(host, record)}
        # A device that is gone is no member of its group any more: it neither waits nor keeps others.
        groups = {record.group for record in mine if record.key not in gone} - {None}
        siblings = [
            r for r in records if r.group in groups and r.key not in keys and r.owner is not None
        ]
        siblings = [sibling for sibling in siblings if owns_place(host, sibling)]
        lent = {sibling.group for sibling in siblings if sibling.handed or sibling.op is not None}
        work: list[Record] = []
        for record in mine:
            if record.key in gone or record.group not in lent or record.phase is Phase.PREPARING:
                work.append(record)
            # It left its domain in an earlier call, and still waits.
            elif record.phase is Phase.RELEASING:
                self._waiting.append(record.address)
            elif record.phase is Phase.ACTIVE:
                # Detached before it was lent: a stub is where it belongs, and it waits for nothing.
                if record.home == "inactive":
                    self._listed.append(record.address)
                    transaction.update(record, record.on_list())
                else:
                    self._waiting.append(record.address)
                    transaction.update(record, record._replace(phase=Phase.RELEASING, handed=False))
        return [*work, *(m for m in siblings if m.group not in lent and not is_crashed(m))]

    def _take(self, transaction: Transaction, operation: Operation, record: Record) -> Record:
        """Claim one record, and remember the one before, which an early interrupt puts back."""
        # The undo of a prepare stays one: its device may not have been confirmed yet.
        phase = Phase.PREPARING if record.phase is Phase.PREPARING else Phase.RELEASING
        taken = record._replace(phase=phase, op=operation.id, stuck=None)
        self._taken[taken] = record
        transaction.take(record, phase, operation.id)
        return taken

    def _devices(self, records: Iterable[Record]) -> tuple[Device, ...]:
        """Read the devices that the hooks are told of; one that is gone has its address alone."""
        devices: list[Device] = []
        for record in records:
            bus = self.caller.host.buses[record.kind]
            device = bus.read(record.address)
            if device is None or bus.identify(record, device) not in SAME:
                device = bus.absent(record.address)
            devices.append(with_record(bus, device, record))
        return tuple(devices)


def _those(devices: Iterable[Device], records: Iterable[Record]) -> tuple[Device, ...]:
    keys = {record.key for record in records}
    return tuple(device for device in devices if (device.kind, device.name) in keys)


def _with_problems(
    errors: Mapping[str, Exception], problems: Iterable[Exception]
) -> dict[str, Exception]:
    """Add the errors of plugins, which stop no restore, to those of the devices."""
    return {**errors, **{f"{PLUGIN}{i}": error for i, error in enumerate(problems, 1)}}


def reattach_detached(caller: Caller, kind: str, address: str) -> Returned:
    """Give back one device that was detached by hand.

    DeviceInUseError while a domain has it, or another device of its IOMMU group;
    DeviceNotFoundError when it is not in the ledger.
    """
    inventory = look(caller.host)
    record = (inventory.records or {}).get((kind, address))
    if record is None:
        raise DeviceNotFoundError(
            f"{address} was not detached by hostdev; there is nothing to give back. One on a stub that no"
            f" record knows goes home with `hostdev device reattach --to-host {address}`",
            device=address,
        )
    if record.owner is not None:
        raise DeviceInUseError(
            f"{address} is in use by {record.owner}; {gives_back(record)}",
            device=address,
            used_by=record.owner,
            rule="lent",
        )
    grouped = record.group is not None and owns_place(caller.host, record)
    for other in (inventory.records or {}).values() if grouped else ():
        shared = other.owner is not None and other.group == record.group
        if shared and owns_place(caller.host, other):
            raise DeviceInUseError(
                f"{address} shares IOMMU group {record.group} with {other.address}, in use by {other.owner};"
                " it must stay on its stub till then",
                device=address,
                used_by=other.owner,
                rule="lent",
            )
    return Reattach(caller, f"reattach {address}", key=(kind, address)).run()
