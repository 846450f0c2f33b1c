"""Plans: what would be done, as data. Pure.

A Plan is data: `to_dict` and `from_dict` carry it through JSON.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from hostdev_core.model.device import UsedBy
from hostdev_core.model.record import NO_STEPS, Record


class Step(NamedTuple):
    """One write to the kernel: `action` is load, override, unbind, bind, probe, reset or power.

    `value` is a module for load, a text (None: none) for override, a kernel driver for unbind and
    bind, "required" or "if possible" for reset, the driver that is not wanted for probe. `former` is
    what the undo puts back.
    """

    action: str
    device: str
    value: str | None
    former: str | None = None

    def __str__(self) -> str:
        if self.action == "load":
            return f"load module {self.value}"
        if self.action == "override":
            return f"set driver_override of {self.device} to {self.value or 'none'}"
        if self.action == "reset":
            return f"reset {self.device} ({self.value})"
        if self.action == "probe":
            return f"let the kernel find a driver for {self.device}"
        if self.action == "power":
            return f"set power/control of {self.device} to {self.value}"
        link = "from" if self.action == "unbind" else "to"
        return f"{self.action} {self.device} {link} {self.value}"

    @property
    def undo(self) -> str:
        """The undo of this step, in words."""
        if self.action in {"load", "reset"}:
            return "none: modules stay loaded" if self.action == "load" else "none"
        if self.action == "override":
            return f"set it to {self.former or 'none'}"
        return (
            f"bind it to {self.value}"
            if self.action == "unbind"
            else f"unbind it from {self.value}"
        )


class BackendStep(NamedTuple):
    """A backend's own step: carried out by its driver's `run_step`, undone by its `undo_step`.

    `name` and `arguments` are for that driver alone; both must be strings, to survive in the ledger.
    """

    name: str
    device: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.name, self.device, *self.arguments))

    @property
    def undo(self) -> str:
        """The undo of this step, in words."""
        return f"undo {self.name}"


class UndoBackend(NamedTuple):
    """The undo of a backend's step, when its device is restored."""

    step: BackendStep

    def __str__(self) -> str:
        return f"undo {self.step}"


AnyStep = Step | BackendStep
UndoStep = Step | UndoBackend


def steps_to_json(steps: Sequence[BackendStep]) -> str:
    """A backend's steps for the ledger."""
    if not steps:
        return NO_STEPS
    return json.dumps([[step.name, step.device, list(step.arguments)] for step in steps])


def steps_from_json(text: str) -> tuple[BackendStep, ...]:
    """The backend's steps that the ledger holds."""
    if text == NO_STEPS:
        return ()
    return tuple(
        BackendStep(name, device, tuple(arguments)) for name, device, arguments in json.loads(text)
    )


@attrs.frozen
class Stub:
    """A stub driver, and the module to load first where it is not in the kernel yet.

    Before the load `kernel_driver` is a guess: a module's name and its driver's may differ.
    """

    kernel_driver: str
    module: str | None = None


@attrs.frozen
class DevicePlan:
    """The plan for one device: the record it gets, and the steps, in order."""

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
        loads = [
            step.value
            for device in self.devices
            for step in device.steps
            if type(step) is Step and step.action == "load" and step.value
        ]
        return tuple(dict.fromkeys(loads))


def _step_dict(step: AnyStep) -> dict[str, Any]:
    kind = "backend" if isinstance(step, BackendStep) else "kernel"
    return {"kind": kind, **step._asdict(), "what": str(step), "undo": step.undo}


def _step_of(data: Mapping[str, Any]) -> AnyStep:
    if data["kind"] == "backend":
        return BackendStep(data["name"], data["device"], tuple(data["arguments"]))
    return Step(data["action"], data["device"], data["value"], data["former"])
