"""Ask all rules about a request: every refusal, not the first alone, by the way of a prepare."""

from functools import partial
from typing import NamedTuple

from hostdev_core.backend import Lender
from hostdev_core.errors import DeviceError, HostdevError, KernelError, PluginError, VetoError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import owns_place
from hostdev_core.inventory.inventory import Inventory, look_near, with_record
from hostdev_core.model.device import Device, PCIDevice
from hostdev_core.model.plan import Plan
from hostdev_core.model.record import Record
from hostdev_core.planning import conflicts
from hostdev_core.planning.conflicts import UnfinishedError, VoidRecordError
from hostdev_core.planning.planner import LOOKS, decide
from hostdev_core.planning.request import Decision, Request


class Refusals(NamedTuple):
    """All that is against a request, in the order in which a prepare comes to it.

    `first` are the records of killed calls that it recovers before; `refused` is what it says then, asked
    over what that recovery will leave, and `decision` what it decides, as far as it gets.
    """

    first: tuple[UnfinishedError, ...]
    refused: tuple[HostdevError, ...]
    decision: Decision | None


def find_refusals(lender: Lender, request: Request) -> Refusals:
    """Look, and ask all rules, by `decide`, as a prepare does; nothing is changed.

    A refusal after which nothing more can be asked (there is no such device, it does not answer) is the last
    one, and there is no decision then.
    """
    for _ in range(LOOKS - 1):
        inventory = look_near(lender.host, request.hostdevs)
        found = _past_unfinished(lender, request, inventory)
        if not found.refused or (
            look_near(lender.host, request.hostdevs).records == inventory.records
        ):
            return found
    return _past_unfinished(lender, request, look_near(lender.host, request.hostdevs))


def plan_or_refuse(lender: Lender, request: Request) -> Plan:
    """Plan a request; the error of the first refusal, whose notes have all further ones.

    What a prepare would recover before is a refusal here: the plan is of the host as it is.
    """
    found = find_refusals(lender, request)
    if errors := (*found.first, *found.refused):
        error, *others = errors
        for other in others:
            error.add_note(f"also: {other}")
        raise error
    assert found.decision is not None  # or there was a refusal
    return found.decision.plan


def _past_unfinished(lender: Lender, request: Request, inventory: Inventory) -> Refusals:
    """Ask; where a prepare would recover a record first, ask again over what that leaves."""
    first: list[UnfinishedError] = []
    while True:
        refused, decision = _ask(lender, request, inventory)
        error = refused[0] if refused else None
        if not isinstance(error, UnfinishedError):
            return Refusals(tuple(first), tuple(refused), decision)
        after = _after_recovery(lender.host, inventory, error)
        if after is None:  # recovered in vain
            return Refusals(tuple(first), tuple(refused), decision)
        inventory = after
        first.append(error)


def _ask(
    lender: Lender, request: Request, inventory: Inventory
) -> tuple[list[HostdevError], Decision | None]:
    refused: list[HostdevError] = []
    decision: Decision | None = None
    try:
        decision = decide(lender, request, inventory, refused)
    except (DeviceError, KernelError, PluginError, VetoError) as error:
        refused.append(error)
    return refused, decision


def _after_recovery(host: Host, inventory: Inventory, error: UnfinishedError) -> Inventory | None:
    """The look as it will be once a record has been recovered, with its IOMMU group and the siblings that
    follow (lending/recovery.py); None where a recovery leaves that record alone.
    """
    owns = partial(owns_place, host)
    records = dict(inventory.records or {})
    group = error.record.group if owns(error.record) else None
    near = [
        r for r in records.values() if r.key == error.record.key or r.group == group is not None
    ]
    void = isinstance(error, VoidRecordError)
    lost = [
        record
        for record in near
        if (void and record.key == error.record.key)
        or conflicts.is_lost(host.state_dir, record, near, owns)
    ]
    if error.record.key not in {record.key for record in lost}:
        return None
    rest = [record for record in near if record not in lost]
    lost += [record for record in rest if conflicts.is_orphaned(record, rest, owns)]
    by_kind = {kind: dict(devices) for kind, devices in inventory.by_kind.items()}
    for record in lost:
        device = None if record.key in inventory.others else inventory.at(record.key)
        del records[record.key]
        if device is None:
            continue
        kept = record.on_list() if record.rests_on_list else None
        if kept is not None:
            records[record.key] = kept
        bus = host.buses[record.kind]
        by_kind[record.kind][record.address] = with_record(bus, _returned(device, record), kept)
    return inventory._replace(by_kind=by_kind, records=records)


def _returned(device: Device, record: Record) -> Device:
    """The device of a record as its restore leaves it: on the driver that it was found on, or on the list."""
    # Before the claim was confirmed nothing was written, and nothing is undone.
    if not isinstance(device, PCIDevice) or record.rests_on_list or not record.confirmed:
        return device
    driver = record.found.kernel_driver
    return device._replace(
        kernel_driver=driver, is_vfio=device.is_vfio and driver == device.kernel_driver
    )
