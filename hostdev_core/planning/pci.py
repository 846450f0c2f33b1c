"""Plan a PCI device: the record it gets, and the steps to its stub."""

import attrs

from hostdev_core.model.device import PCIDetails, PCIDevice
from hostdev_core.model.domain import PCIHostdev
from hostdev_core.model.owner import UsedBy
from hostdev_core.model.plan import DevicePlan, Stub
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.model.steps import AnyStep, BackendStep, Step, steps_to_json
from hostdev_core.planning.steps import steps_to_stub


@attrs.frozen
class Candidate:
    """A PCI device that is to be taken, with all that was read of it; `hostdev` None: a sibling."""

    device: PCIDevice
    details: PCIDetails
    stub: Stub
    hostdev: PCIHostdev | None = None
    module: str | None = None
    reset: Step | None = None
    backend_steps: tuple[BackendStep, ...] = ()


def plan_device(
    candidate: Candidate,
    owner: UsedBy | None,
    backend: str,
    old: Record | None,
    allow: frozenset[str] = frozenset(),
) -> DevicePlan:
    """The record and the steps for one PCI device.

    `old` is its record on the inactive list; a sibling is taken under the rules in `allow`.
    """
    device, details, hostdev = candidate.device, candidate.details, candidate.hostdev
    found = Found(
        device.kernel_driver, details.driver_override, details.power_control, candidate.module
    )
    stays = hostdev is not None and not hostdev.managed
    base = old or Record("pci", device.name, Phase.PREPARING, backend, found=found)
    record = base._replace(
        phase=Phase.PREPARING,
        backend=base.backend if old else backend,
        owner=owner,
        home="inactive" if old is not None or stays else "host",
        listed=old is not None,
        handed=hostdev is not None,
        confirmed=False,
        stub=candidate.stub.kernel_driver,
        steps=base.steps if old else steps_to_json(candidate.backend_steps),
        modalias=device.modalias,
        revision=details.revision,
        inode=details.inode,
        group=device.iommu_group,
        physfn=device.physfn,
        allowed=" ".join(sorted(hostdev.allow if hostdev else allow)),
    )
    return DevicePlan(record, _reset(candidate) if old else _steps(candidate, found))


def _steps(candidate: Candidate, found: Found) -> tuple[AnyStep, ...]:
    name, stub = candidate.device.name, candidate.stub
    first = [Step("load", name, stub.module)] if stub.module else []
    return (
        *first,
        *steps_to_stub(name, found, stub.kernel_driver),
        *_reset(candidate),
        *candidate.backend_steps,
    )


def _reset(candidate: Candidate) -> tuple[Step, ...]:
    """What a device needs between two users, also one that stays on its stub meanwhile."""
    return (candidate.reset,) if candidate.reset else ()
