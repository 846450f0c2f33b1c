"""What one call asks for, and what was decided about it."""

from collections.abc import Iterable

import attrs

from hostdev_core.errors import DeviceInUseError
from hostdev_core.inventory.drift import ends, way_out
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.model.device import PCIDevice, USBDevice
from hostdev_core.model.domain import Domain, Hostdev, PrepareFlags
from hostdev_core.model.owner import UsedBy
from hostdev_core.model.plan import Plan
from hostdev_core.model.record import Record
from hostdev_core.planning import lookup as survey
from hostdev_core.planning import pci_rules as rules
from hostdev_core.runtime import operation as operations

Device = PCIDevice | USBDevice
SAME_OWNER = "what it has already is no error with --same-owner (PrepareFlags.ALLOW_SAME_OWNER)"


@attrs.frozen
class Request:
    """What one call asks for; no domain and no owner: detach."""

    hostdevs: tuple[Hostdev, ...]
    domain: Domain | None = None
    owner: UsedBy | None = None
    flags: PrepareFlags = PrepareFlags.NONE

    @property
    def allow(self) -> frozenset[str]:
        """The rules that any of its hostdevs passes: siblings are taken under all of them."""
        return frozenset[str]().union(*(hostdev.allow for hostdev in self.hostdevs))

    def is_own(self, record: Record) -> bool:
        """Whether a record is of the domain that asks; a detach has none."""
        mine, other = self.owner, record.owner
        return mine is not None and other is not None and mine.is_same_owner(other)

    @property
    def what(self) -> str:
        """The request for messages."""
        return (
            f"prepare {self.domain.name}"
            if self.domain
            else f"detach {survey.names_of(self.hostdevs)}"
        )


@attrs.frozen
class Decision:
    """What was decided over which look; `pairs` are the hostdevs, in order, and their devices.

    `vain` is what is to be said of rules in an `allow` that nothing refused by.
    """

    plan: Plan
    inventory: Inventory
    pairs: tuple[tuple[Hostdev, Device | None], ...]
    vain: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that are to be taken, siblings too: what the hooks are told."""
        names = {device.record.key for device in self.plan.devices}
        names |= {record.key for record in self.plan.upgrades}
        known: tuple[Device, ...] = (*self.inventory.pci.values(), *self.inventory.usb.values())
        return tuple(device for device in known if (device.kind, device.name) in names)


class LeftOverError(DeviceInUseError):
    """Only what a dead operation left is in the way: whoever may change something recovers it."""

    def __init__(self, message: str, *, device: str, record: Record) -> None:
        super().__init__(message, device=device, used_by=record.owner, rule="lent")
        self.record = record


class VoidRecordError(LeftOverError):
    """Only a record whose device is gone is in the way of the one that is at its address now."""


def _has_it(wanted: Record, other: Record) -> bool:
    """Whether the domain that asks has the device, and nothing is wrong with that."""
    if wanted.owner is None or other.owner is None or not wanted.owner.is_same_owner(other.owner):
        return False
    return other.is_lent and other.op is None and other.stuck is None


def in_the_way(
    state_dir: str,
    wanted: Record,
    other: Record,
    records: Iterable[Record],
    holds: rules.Holds,
    *,
    since: str | None = None,
) -> DeviceInUseError:
    """The error for a claim of one device that `other` is in the way of, by who could clear it away.

    `since`: what became of the other's device.
    """
    alive = other.op is not None and operations.is_alive(state_dir, other.op)
    doing = operations.describe(state_dir, other.op or "") if alive else None
    void = other.key == wanted.key and rules.is_void(other, holds)
    then = f"its device is gone: {ends(other)}" if void else way_out(other, doing)
    if not void and other.key == wanted.key and _has_it(wanted, other):
        then = SAME_OWNER
    error = rules.in_use(wanted.address, other, doing, then=since or then)
    if void:
        return VoidRecordError(error.args[0], device=wanted.address, record=other)
    if (rules.is_left_over(other) and not alive) or rules.is_stranded(other, records, holds):
        return LeftOverError(error.args[0], device=wanted.address, record=other)
    return error
