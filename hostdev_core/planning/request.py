"""One call's request, the question that it puts to the planner, and the decision."""

import attrs

from hostdev_core.backend import CheckedBackend, Lender
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.model.device import Device, UsedBy
from hostdev_core.model.domain import Domain, Hostdev, PrepareFlags
from hostdev_core.model.plan import Plan
from hostdev_core.model.record import Record
from hostdev_core.model.rulebook import Refusal


@attrs.frozen
class Request:
    """The hostdevs that one call asks for; no domain and no owner: detach."""

    hostdevs: tuple[Hostdev, ...]
    domain: Domain | None = None
    owner: UsedBy | None = None
    flags: PrepareFlags = PrepareFlags.NONE

    @property
    def allow(self) -> frozenset[str]:
        """The rules that any of its hostdevs passes: siblings are taken under all of them."""
        return frozenset[str]().union(*(hostdev.allow for hostdev in self.hostdevs))

    @property
    def is_for_guest(self) -> bool:
        """Whether a domain gets the devices; a detach only takes them from the host."""
        return self.owner is not None

    def is_own(self, record: Record) -> bool:
        """Whether a record is of the domain that asks; a detach has none."""
        mine, other = self.owner, record.owner
        return mine is not None and other is not None and mine.is_same_owner(other)

    @property
    def what(self) -> str:
        """The request for messages."""
        if self.domain:
            return f"prepare {self.domain.name}"
        return f"detach {' '.join(str(hostdev) for hostdev in self.hostdevs)}"


@attrs.define(eq=False)
class Question:
    """A request, put to one look at the host; the planner's rules leave warnings and risks in it."""

    lender: Lender
    request: Request
    inventory: Inventory
    warnings: list[str] = attrs.field(factory=list[str])
    risks: list[Refusal] = attrs.field(factory=list[Refusal])

    @property
    def host(self) -> Host:
        """The host that is looked at."""
        return self.lender.host

    def backend(self, hostdev: Hostdev | None = None) -> CheckedBackend:
        """The backend, told of the domain that asks and of this hostdev."""
        return self.lender.backend.about(self.request.domain, hostdev)

    def warn(self, warning: str) -> None:
        """Add a warning to the plan, once for all devices that it is about."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def owns_place(self, record: Record) -> bool:
        """Whether a record's group, PF and controller are still its device's (`Inventory.owns_place`)."""
        return self.inventory.owns_place(self.host, record)


@attrs.frozen
class Decision:
    """The plan, and the look that it was made over; `pairs` are the hostdevs, in order, and their devices.

    `devices` are those that are to be taken, siblings too: the hooks are told of these. `vain` is said of
    rules in an `allow` by which nothing was refused.
    """

    plan: Plan
    inventory: Inventory
    pairs: tuple[tuple[Hostdev, Device | None], ...]
    devices: tuple[Device, ...]
    vain: tuple[str, ...] = ()
