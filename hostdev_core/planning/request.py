"""One call's request, the question that it puts to the planner, and the decision."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import attrs

from hostdev_core.backend import CheckedBackend, Lender
from hostdev_core.errors import DeviceError, HostdevError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory, Key
from hostdev_core.inventory.users import Dependents
from hostdev_core.model.device import Device, UsedBy
from hostdev_core.model.domain import Domain, Hostdev, PrepareFlags
from hostdev_core.model.plan import Plan, Stub
from hostdev_core.model.record import Record
from hostdev_core.model.rulebook import Refusal

State = (
    Hashable  # of a device, as its bus's planner reads it: the same as long as nothing has changed
)


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
    """A request, put to one look at the host.

    The planners leave warnings and risks in it, the stub drivers that they have found, by the names that
    were wanted, and the `states` of the devices to be taken. `refused` has the refusals where all of them
    are asked for; None: the first one is raised.
    """

    lender: Lender
    request: Request
    inventory: Inventory
    host: Host = attrs.field(init=False)
    warnings: list[str] = attrs.field(factory=list[str])
    risks: list[Refusal] = attrs.field(factory=list[Refusal])
    stubs: dict[str, Stub] = attrs.field(factory=dict[str, Stub])
    states: dict[Key, State] = attrs.field(factory=dict[Key, State])
    refused: list[HostdevError] | None = None

    def __attrs_post_init__(self) -> None:
        self.host = self.lender.host

    def backend(self, hostdev: Hostdev | None = None) -> CheckedBackend:
        """The backend, told of the domain that asks and of this hostdev."""
        return self.lender.backend.about(self.request.domain, hostdev)

    def refuse(self, error: HostdevError) -> None:
        """Raise a refusal, or note it and let the planners go on to the next, where all are asked for."""
        if self.refused is None:
            raise error
        self.refused.append(error)

    def ask(self, *checks: tuple[Callable[..., object], Sequence[object]]) -> bool:
        """Make checks, each with its arguments, and `refuse` what they raise about a device.

        Whether none of them raised.
        """
        passed = True
        for check, arguments in checks:
            try:
                check(*arguments)
            except DeviceError as error:
                passed = False
                self.refuse(error)
        return passed

    def warn(self, warning: str) -> None:
        """Add a warning to the plan, once for all devices that it is about."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def owns_place(self, record: Record) -> bool:
        """Whether a record's group, PF and controller are still its device's (`Inventory.owns_place`)."""
        return self.inventory.owns_place(self.host, record)


@attrs.frozen
class Decision:
    """The plan, and the question it answers; `pairs` are the hostdevs, in order, and their devices.

    `devices` are those that are to be taken, siblings too: the hooks are told of these. `dependents` are
    what was found below each, by its name. `told` are those of the plan's warnings that are logged where it
    is carried out.
    """

    plan: Plan
    question: Question
    pairs: tuple[tuple[Hostdev, Device | None], ...]
    devices: tuple[Device, ...]
    dependents: Mapping[str, Dependents] = attrs.field(factory=dict[str, Dependents])
    told: tuple[str, ...] = ()

    @property
    def inventory(self) -> Inventory:
        """The look that the decision was made over."""
        return self.question.inventory

    @property
    def records(self) -> list[Record]:
        """The records that the planned devices get."""
        return [device.record for device in self.plan.devices]
