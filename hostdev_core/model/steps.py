"""Steps: the writes to a device, and a backend's own actions, as data, each with the words of its undo."""

import json
from collections.abc import Sequence
from typing import NamedTuple


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
    return json.dumps([[step.name, step.device, list(step.arguments)] for step in steps])


def steps_from_json(text: str) -> tuple[BackendStep, ...]:
    """The backend's steps that the ledger holds."""
    return tuple(
        BackendStep(name, device, tuple(arguments)) for name, device, arguments in json.loads(text)
    )
