"""What a watcher is told: one thing that has happened to one device."""

from enum import StrEnum
from typing import Any, NamedTuple

from hostdev_core.model.device import UsedBy


class EventKind(StrEnum):
    """What has happened to a device; docs/watching.md has what each means."""

    ADDED = "added"
    REMOVED = "removed"
    BOUND = "bound"
    UNBOUND = "unbound"
    LENT = "lent"
    RETURNED = "returned"
    DETACHED = "detached"
    AT_WORK = "at work"
    STUCK = "stuck"
    DRIFT = "drift"
    DRIFT_ENDED = "drift ended"
    HELD = "held"
    LET_GO = "let go"


class Event(NamedTuple):
    """One thing that has happened to a device, or that stood when the watch began (`initial`).

    `device` is its address or port, `bus` "pci" or "usb". `time` is when it was seen, in seconds since the
    epoch. `state` is the word that `hostdev list` has for the device since. `kernel_driver` is the one that
    it was bound to or unbound from, `owner` the domain that has it, or that had it; `reason` says what is
    wrong, who is at work, or who holds it. What a kind does not tell is None.
    """

    kind: EventKind
    device: str
    bus: str
    time: float
    state: str
    kernel_driver: str | None = None
    owner: UsedBy | None = None
    reason: str | None = None
    initial: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-able data, a line of `hostdev watch --json`."""
        return {
            "event": str(self.kind),
            "time": self.time,
            "kind": self.bus,
            "address": self.device,
            "state": self.state,
            "kernel_driver": self.kernel_driver,
            "used_by": self.owner and self.owner._asdict(),
            "reason": self.reason,
            "initial": self.initial,
        }
