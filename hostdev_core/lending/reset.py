"""Reset one device by a plan of one step; the device is claimed meanwhile, so that no other call lends it."""

import logging
from functools import partial

from hostdev_core.backend import CheckedBackend, Lender
from hostdev_core.bus.pci import read_pci
from hostdev_core.errors import DeviceNotFoundError, KernelError, NotAssignableError, StateError
from hostdev_core.inventory.drift import check_same, check_there, explain
from hostdev_core.inventory.inventory import Inventory, look_near
from hostdev_core.inventory.vfio import check_holders, close_all, open_group
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.lending.claim import insert
from hostdev_core.lending.recovery import past_unfinished
from hostdev_core.lending.restore import Restore
from hostdev_core.lending.stuck import mark_late, revert_records
from hostdev_core.lending.writer import Writer
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDevice
from hostdev_core.model.domain import PCIHostdev
from hostdev_core.model.plan import DevicePlan, Step
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.rulebook import explain_vain
from hostdev_core.planning.risks import find_risks, raise_standing
from hostdev_core.runtime.lane_report import raise_first
from hostdev_core.runtime.lanes import Lane, run_lanes
from hostdev_core.runtime.operation import Operation

ATTEMPTS = 3
log = logging.getLogger("hostdev")


def reset_device(lender: Lender, address: PCIAddress, allow: frozenset[str]) -> None:
    """Reset a device that is free, and on a stub or on no driver.

    DeviceInUseError for one that is lent or held; NotAssignableError for one on a host driver; VetoError
    for refusals, unless their rules are in `allow`; StateError when another card is in the place of the
    one that was detached. Records of dead operations in the way are recovered first.
    """
    lender.host.check_permitted()
    for _ in range(ATTEMPTS):
        if past_unfinished(lender, lambda: _reset(lender, address, allow)):
            return
    raise StateError(
        f"reset {address}: the device changed under {ATTEMPTS} attempts; see who detaches it"
    )


def _reset(lender: Lender, address: PCIAddress, allow: frozenset[str]) -> bool:
    """Plan, claim and reset; False when the device came to the inactive list, or left it, meanwhile."""
    host = lender.host
    # First: a card that is exchanged during the checks has another inode, and is not reset.
    inode = host.sysfs.inode(f"{PCI_DEVICES}/{address}")
    device = read_pci(host.sysfs, address)
    _check(lender, device, allow)
    host.ledger.create()
    inventory = look_near(host, [PCIHostdev(address=device.name)])
    plan = _plan(lender, device, inode, inventory)
    with Operation.start(host.state_dir, f"reset {device.name}") as operation:
        try:
            claimed = insert(host, operation, [plan.record], inventory)
            if claimed is None:
                return False
            (record,) = claimed
            job = partial(_job, lender, device, plan, operation, record)
            report = run_lanes(
                {device.name: job}, operation=operation, listen=host.listen_to_kernel
            )
        except BaseException:  # interrupted before the job had begun
            mine = host.ledger.read(lambda records: records.of_operation(operation.id)) or ()
            revert_records(host, {claim: inventory.record_at_address(claim.key) for claim in mine})
            raise
        overdue = [mark_late(host, lane, [record]) for lane in report.late.values()]
        for error in overdue:
            raise error
        raise_first(report)
        operation.done = True
    return True


def _check(lender: Lender, device: PCIDevice, allow: frozenset[str]) -> None:
    """Raise NotAssignableError for a device on a host driver, VetoError for refusals not in `allow`."""
    _check_stub(lender.backend, device)
    refusals = lender.hooks.check(None, (device,))
    refusals = [*find_risks(lender.host, (device,), refusals).refusals, *refusals]
    raise_standing(refusal for refusal in refusals if refusal.rule not in allow)
    if vain := allow - {refusal.rule for refusal in refusals}:
        for warning in explain_vain(vain, lender.hooks.rules()):
            log.warning("%s", warning)


def _check_stub(backend: CheckedBackend, device: PCIDevice) -> None:
    """Raise NotAssignableError for a device on a host driver: a reset would hit that unprepared."""
    if device.gives_vfio:
        raise NotAssignableError(
            f"{device.name} is handed to guests by its own driver, {device.kernel_driver}, which resets"
            " it for each of them",
            device=device.name,
            rule="host-driver",
        )
    if device.kernel_driver is not None and not backend.accepts_stub(device.kernel_driver):
        raise NotAssignableError(
            f"{device.name} is on host driver {device.kernel_driver}, which does not expect a reset"
            f"; detach it first: `hostdev device detach {device.name}`",
            device=device.name,
            rule="host-driver",
        )


def _plan(lender: Lender, device: PCIDevice, inode: int | None, inventory: Inventory) -> DevicePlan:
    """Plan the reset, under a record with nothing to undo.

    Restoring such a record deletes it; one from the inactive list goes back there.
    """
    known = inventory.record_at_address((device.kind, device.name))
    listed = known is not None and known.phase is Phase.INACTIVE and known.op is None
    record = Record("pci", device.name, Phase.PREPARING, lender.backend.name, inode=inode)
    record = record._replace(group=device.iommu_group, physfn=device.physfn)
    if known is not None and listed:
        check_same(lender.host, known, device)
        record = known._replace(phase=Phase.PREPARING, listed=True, confirmed=False)
    return DevicePlan(record, (Step("reset", device.name, "required"),))


def _job(
    lender: Lender,
    device: PCIDevice,
    plan: DevicePlan,
    operation: Operation,
    record: Record,
    lane: Lane,
) -> None:
    """Reset with the VFIO group held, then end the claim; in the lane's thread, however late that ends."""
    host = lender.host
    guard: list[int] = []
    try:
        _check_stub(lender.backend, read_pci(host.sysfs, device.address))  # it may have moved since
        if device.iommu_group is not None:
            fd = open_group(host, device.iommu_group, device.name)
            guard += [] if fd is None else [fd]
        check_holders(lender.backend, device, asked=bool(guard))
        writer = Writer(host, operation.fd)
        for step in plan.steps:
            if isinstance(step, Step):
                writer.carry_out(lane, step, record)
        check_there(host, [record])
    except (KernelError, DeviceNotFoundError) as cause:
        explain(host, record, cause)
        raise
    finally:
        close_all(guard)  # first: a group opens once, and siblings that follow are guarded by it
        restored = Restore(lender, operation).restore_lane(lane, [record])
    for error in restored.errors.values():
        raise error
