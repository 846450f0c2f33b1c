"""Parts of hostdev that test_harness.py takes away, each to show that the harness notices its loss.

Only ever in the process of one job, which ends with it.
"""

from collections.abc import Callable
from typing import Any

from hostdev_core.bus import bus
from hostdev_core.inventory import state
from hostdev_core.lending import claim, prepare, recovery, restore, undo, writer
from hostdev_core.model.plan import Step
from hostdev_core.planning import steps
from hostdev_core.runtime import operation as operations


def _steps_without(action: str) -> Callable[..., Any]:
    whole = steps.steps_back

    def steps_back(*args: Any, **options: Any) -> list[Any]:
        way = whole(*args, **options)
        return [step for step in way if not (isinstance(step, Step) and step.action == action)]

    return steps_back


def _yes(*args: Any, **options: Any) -> bool:
    """Instead of an answer."""
    return True


def _no(*args: Any, **options: Any) -> bool:
    """Instead of an answer."""
    return False


def _confirmed(lender: Any, request: Any, decision: Any, records: list[Any]) -> list[Any]:
    """Instead of a second reading."""
    return records


def _there(*args: Any, **options: Any) -> str:
    """Instead of an answer."""
    return "there"


def _nothing(*args: Any, **options: Any) -> None:
    """Instead of what was there."""


MUTATIONS: dict[str, Callable[[], tuple[object, str, object]]] = {
    "the undo of driver_override": lambda: (undo, "steps_back", _steps_without("override")),
    "the undo of power control": lambda: (undo, "steps_back", _steps_without("power")),
    "the way back of the driver": lambda: (undo, "steps_back", _steps_without("bind")),
    "the undo of a failed prepare": lambda: (prepare.Prepare, "_undo", _nothing),
    "the reading after the claim": lambda: (claim, "_confirm", _confirmed),
    "the recovery": lambda: (recovery, "is_lost", _no),
    "the lock of an operation": lambda: (operations, "is_alive", _yes),
    "the end of dead lock files": lambda: (state.HostdevState, "cleanup", _nothing),
    "the check for drift": lambda: (steps, "_check_drift", _nothing),
    "the look after a write": lambda: (writer.Writer, "_verify", _nothing),
    "the look for another card": lambda: (bus.Bus, "locate", _there),
    "the record of what is stuck": lambda: (restore, "mark_stuck", _nothing),
}


def take_away(name: str) -> None:
    """Take one part away."""
    setattr(*MUTATIONS[name]())
