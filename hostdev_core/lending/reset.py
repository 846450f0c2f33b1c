"""The way of a reset: the device is claimed meanwhile, so that nobody gets it in the middle."""

import logging
from functools import partial
from typing import TYPE_CHECKING

from hostdev_core import backend as answers
from hostdev_core.bus.pci import read_pci
from hostdev_core.errors import DeviceNotFoundError, KernelError, NotAssignableError
from hostdev_core.inventory.drift import check_same, check_there, explain
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.vfio import check_holders, close_all, open_group
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.ledger.store import Transaction, now
from hostdev_core.lending.recovery import past_left_overs
from hostdev_core.lending.restore import Homeward
from hostdev_core.lending.stuck import leave_late, put_back
from hostdev_core.lending.writer import Writer
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDevice
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.rulebook import explain_vain
from hostdev_core.model.steps import Step
from hostdev_core.planning.pci_rules import Holds, find_conflict, raise_standing
from hostdev_core.planning.request import in_the_way
from hostdev_core.planning.risks import find_risks
from hostdev_core.runtime.lanes import Lane, raise_first, run_lanes
from hostdev_core.runtime.operation import Operation

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.local_driver import LocalHostdevDriver

log = logging.getLogger("hostdev")


def reset_device(
    driver: "LocalHostdevDriver", conn: "Connection", address: PCIAddress, allow: frozenset[str]
) -> None:
    """Reset a device that is on no host driver and that nobody has; DeviceInUseError otherwise.

    StateError when another card is in the place of the one that was detached. Refusals by the rules
    in `allow` are passed. What dead operations left in the way is recovered first.
    """
    conn.host.check_permitted()
    past_left_overs(conn, lambda: _reset(driver, conn, address, allow))


def _reset(
    driver: "LocalHostdevDriver", conn: "Connection", address: PCIAddress, allow: frozenset[str]
) -> None:
    host = conn.host
    inode = host.sysfs.inode(f"{PCI_DEVICES}/{address}")  # of what is looked at from here on
    device = read_pci(host.sysfs, address)
    _check_stub(driver, device)
    refusals = conn.hooks.check(conn, None, (device,))
    refusals = [*find_risks(host, (device,), refusals).refusals, *refusals]
    raise_standing(refusal for refusal in refusals if refusal.rule not in allow)
    if vain := allow - {refusal.rule for refusal in refusals}:
        for warning in explain_vain(vain, conn.hooks.rules()):
            log.warning("%s", warning)
    fresh = Record("pci", device.name, Phase.PREPARING, driver.name, inode=inode)
    fresh = fresh._replace(group=device.iommu_group, physfn=device.physfn)
    host.ledger.create()
    holds = partial(look(host).holds, host)
    with Operation.start(host.state_dir, f"reset {device.name}") as operation:
        claimed: dict[Record, Record | None] = {}
        try:
            with host.ledger.transaction() as transaction:
                record = _claim(transaction, conn, fresh, operation, claimed, holds)
            job = partial(_job, driver, conn, device, operation, record)
            round_ = run_lanes(
                {device.name: job}, operation=operation, listen=host.listen_to_kernel
            )
        except BaseException:  # interrupted before the job had begun
            put_back(host, claimed)
            raise
        overdue = [leave_late(host, lane, [record]) for lane in round_.late.values()]
        for error in overdue:
            raise error
        raise_first(round_)
        operation.done = True


def _check_stub(driver: "LocalHostdevDriver", device: PCIDevice) -> None:
    if device.gives_vfio:
        raise NotAssignableError(
            f"{device.name} is handed to guests by its own driver, {device.kernel_driver}, which resets"
            " it for each of them",
            device=device.name,
            rule="host-driver",
        )
    if device.kernel_driver is not None and not answers.accepts_stub(driver, device.kernel_driver):
        raise NotAssignableError(
            f"{device.name} is on host driver {device.kernel_driver}, which does not expect a reset"
            f"; detach it first: `hostdev device detach {device.name}`",
            device=device.name,
            rule="host-driver",
        )


def _claim(
    transaction: Transaction,
    conn: "Connection",
    fresh: Record,
    operation: Operation,
    claimed: dict[Record, Record | None],
    holds: Holds,
) -> Record:
    """A record that nothing needs undoing of: whoever finds it drops it, or puts it on its list."""
    records = {record.key: record for record in transaction.records()}
    old = records.get(fresh.key)
    rests = old is not None and old.phase is Phase.INACTIVE and old.op is None
    base = old if old is not None and rests else fresh
    record = base._replace(
        phase=Phase.PREPARING, op=operation.id, listed=rests, confirmed=False, since=now()
    )
    if other := find_conflict(record, records, holds):
        raise in_the_way(conn.host.state_dir, record, other, records.values(), holds)
    if rests:
        check_same(conn.host, record)
    claimed[record] = old
    if old is not None:
        transaction.update(old, record)
    else:
        transaction.insert(record)
    return record


def _job(
    driver: "LocalHostdevDriver",
    conn: "Connection",
    device: PCIDevice,
    operation: Operation,
    record: Record,
    lane: Lane,
) -> None:
    """Reset with the group held; the claim ends with the lane, however late that is."""
    host = conn.host
    guard: list[int] = []
    try:
        _check_stub(driver, read_pci(host.sysfs, device.address))  # it may have gone home since
        if device.iommu_group is not None:
            fd = open_group(host, device.iommu_group, device.name)
            guard += [] if fd is None else [fd]
        check_holders(conn, driver, device, asked=bool(guard))
        step = Step("reset", device.name, "required")
        Writer(host, operation.fd).carry_out(lane, step, record.inode)
        check_there(host, [record])
    except (KernelError, DeviceNotFoundError) as cause:
        explain(host, record, cause)
        raise
    finally:
        close_all(guard)
        errors = Homeward(conn, operation).go_home(lane, [record])
    for error in errors.values():
        raise error
