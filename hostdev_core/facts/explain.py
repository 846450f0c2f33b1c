"""Explain devices: every reason why a prepare would refuse each, and what the host would lose with it.

The reasons are those of a prepare: the same rules are asked, in the same order (`find_refusals`).
"""

from collections.abc import Iterator

import attrs

from hostdev_core.backend import Lender
from hostdev_core.doctor.finding import Level
from hostdev_core.doctor.iommu import check_interrupts
from hostdev_core.errors import DeviceError, HostdevError, VetoError
from hostdev_core.facts.facts import Facts
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.kernel.vfio import is_isolated
from hostdev_core.model.device import Device, PCIDevice, is_vfio_driver
from hostdev_core.model.domain import Hostdev
from hostdev_core.model.explanation import Explanation, Reason, Resetting
from hostdev_core.model.rulebook import Refusal
from hostdev_core.planning.refusals import Refusals, find_refusals
from hostdev_core.planning.request import Decision, Request


def explain(lender: Lender, request: Request) -> tuple[Explanation, ...]:
    """Explain each hostdev of a request as if it were asked for alone; nothing is changed."""
    facts = Facts.of(lender.host)
    judged = [
        (hostdev, find_refusals(lender, attrs.evolve(request, hostdevs=(hostdev,))))
        for hostdev in request.hostdevs
    ]
    devices = [_device(facts, hostdev, refusals.decision) for hostdev, refusals in judged]
    facts.look_closely(list(filter(None, devices)))
    return tuple(
        _explanation(facts, hostdev, device, refusals)
        for (hostdev, refusals), device in zip(judged, devices, strict=True)
    )


def _device(facts: Facts, hostdev: Hostdev, decision: Decision | None) -> Device | None:
    """The device that a hostdev means; None where there is none, or several."""
    if decision is not None:
        return next(device for _, device in decision.pairs)
    known = facts.inventory.by_kind.get(hostdev.kind, {})
    return facts.host.buses[hostdev.kind].find(hostdev, known)


def _explanation(
    facts: Facts, hostdev: Hostdev, device: Device | None, refusals: Refusals
) -> Explanation:
    first, refused, decision = refusals
    found = Explanation(
        str(hostdev) if device is None else device.name,
        reasons=tuple(reason for error in refused for reason in _reasons(error, str(hostdev))),
        first=tuple(map(str, first)),
        # Before a recovery, what was read of the device is not yet what a prepare would warn of.
        warnings=() if decision is None or first else decision.plan.warnings,
    )
    if device is None:
        return found
    if decision is not None:
        found = found._replace(reasons=(*found.reasons, *_foreseen(decision)))
    use = facts.use(device)
    found = found._replace(losses=use.evidence if use.code == "host" else ())
    if not isinstance(device, PCIDevice):
        return found
    members = facts.inventory.group(device.iommu_group)
    others = [(each.name, each.kernel_driver) for each in members if each.name != device.name]
    return found._replace(
        iommu_group=device.iommu_group, members=tuple(others), resets=_resetting(facts, device)
    )


def _reasons(error: HostdevError, device: str) -> Iterator[Reason]:
    if isinstance(error, VetoError):
        for refusal in error.refusals:
            assert isinstance(refusal, Refusal)  # VetoError takes plugins' own, too
            yield Reason(
                refusal.rule, refusal.device, refusal.reason, tuple(refusal.evidence), passable=True
            )
    elif isinstance(error, DeviceError):
        yield Reason(error.rule, error.device or device, error.args[0], error.evidence)
    else:
        yield Reason(None, device, str(error))


def _foreseen(decision: Decision) -> Iterator[Reason]:
    """Yield why VFIO would refuse a group when a prepare tries it out: interrupts are not remapped.

    The kernel tells nobody before (vfio_iommu_type1_attach_group() in drivers/vfio/vfio_iommu_type1.c).
    """
    question = decision.question
    host, tries = question.host, question.lender.backend.driver.tries_vfio
    tried = [each.record for each in decision.plan.devices if is_vfio_driver(each.record.stub)]
    if not (tries and tried and question.request.is_for_guest):
        return
    if tried[0].group is None or not is_isolated(host.sysfs, tried[0].group):
        return
    for finding in check_interrupts(host):
        if finding.level == Level.PROBLEM:
            reason = f"{finding.title}; {finding.remedy}"
            yield Reason("vfio-refuses", tried[0].address, reason, finding.evidence)


def _resetting(facts: Facts, device: PCIDevice) -> Resetting:
    """How a device can be reset.

    The methods are of the function alone: the kernel offers "bus" only where no other is on the bus
    (pci_parent_bus_reset() in drivers/pci/pci.c). VFIO's hot reset is of all functions of a bus, and only if
    one guest has them all (VFIO_DEVICE_PCI_HOT_RESET in include/uapi/linux/vfio.h). Format:
    Documentation/ABI/testing/sysfs-bus-pci, reset_method.
    """
    text = facts.host.sysfs.glance(f"{PCI_DEVICES}/{device.name}/reset_method") or ""
    bus = device.address[:2]
    along = [
        each.name
        for each in facts.inventory.pci.values()
        if each.address[:2] == bus and each.name != device.name
    ]
    return Resetting(tuple(text.split()), tuple(along) if bus[1] else ())
