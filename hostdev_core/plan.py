"""Plans: what would be done, as data. Pure.

A Plan is data: `to_dict` and `from_dict` carry it through JSON.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from hostdev_core.domain import PCIHostdev
from hostdev_core.owner import UsedBy
from hostdev_core.pci import PCIDetails, PCIDevice
from hostdev_core.record import Found, Phase, Record
from hostdev_core.steps import AnyStep, BackendStep, Step, steps_to_stub


@attrs.frozen
class Stub:
    """A stub driver, and the module to load first where it is not in the kernel yet.

    Before the load `kernel_driver` is a guess: a module's name and its driver's may differ.
    """

    kernel_driver: str
    module: str | None = None


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


@attrs.frozen
class DevicePlan:
    """What is done to one device: the record it gets, and the steps, in order."""

    record: Record
    steps: tuple[AnyStep, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan of this device as JSON-able data."""
        record = self.record
        return {
            "kind": record.kind,
            "address": record.address,
            "handed": record.handed,
            "iommu_group": record.group,
            "kernel_driver": record.found.kernel_driver,
            "stub": record.stub,
            "returns": "inactive list" if record.home == "inactive" else "as found",
            "steps": [_step_dict(step) for step in self.steps],
            "record": record.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DevicePlan":
        """The plan that `to_dict` gave."""
        return cls(
            Record.from_dict(data["record"]), tuple(_step_of(step) for step in data["steps"])
        )


@attrs.frozen
class Plan:
    """All that a prepare would do.

    `present` are records that the same owner holds already, `upgrades` those that it has as siblings
    only and asks for by name now.
    """

    owner: UsedBy | None
    devices: tuple[DevicePlan, ...] = ()
    present: tuple[Record, ...] = ()
    upgrades: tuple[Record, ...] = ()
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        return {
            "owner": None if self.owner is None else self.owner._asdict(),
            "devices": [device.to_dict() for device in self.devices],
            "present": [record.to_dict() for record in self.present],
            "upgrades": [record.to_dict() for record in self.upgrades],
            "missing": list(self.missing),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """The plan that `to_dict` gave."""
        owner = data["owner"]
        return cls(
            None if owner is None else UsedBy(**owner),
            tuple(DevicePlan.from_dict(device) for device in data["devices"]),
            tuple(Record.from_dict(row) for row in data["present"]),
            tuple(Record.from_dict(row) for row in data["upgrades"]),
            tuple(data["missing"]),
            tuple(data["warnings"]),
        )

    @property
    def loads(self) -> tuple[str, ...]:
        """The modules that must be loaded first."""
        steps = (step for device in self.devices for step in device.steps)
        modules = (s.value for s in steps if isinstance(s, Step) and s.action == "load")
        return tuple(dict.fromkeys(module for module in modules if module))


def _step_dict(step: AnyStep) -> dict[str, Any]:
    kind = "backend" if isinstance(step, BackendStep) else "kernel"
    return {"kind": kind, **step._asdict(), "what": str(step), "undo": step.undo}


def _step_of(data: Mapping[str, Any]) -> AnyStep:
    if data["kind"] == "backend":
        return BackendStep(data["name"], data["device"], tuple(data["arguments"]))
    return Step(data["action"], data["device"], data["value"], data["former"])


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


def steps_to_json(steps: Sequence[BackendStep]) -> str:
    """A backend's steps for the ledger."""
    return json.dumps([[step.name, step.device, list(step.arguments)] for step in steps])


def steps_from_json(text: str) -> tuple[BackendStep, ...]:
    """The backend's steps that the ledger holds."""
    return tuple(
        BackendStep(name, device, tuple(arguments)) for name, device, arguments in json.loads(text)
    )
