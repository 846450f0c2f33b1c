"""Why a device can be lent, or cannot: what `Connection.explain` answers."""

from typing import Any, NamedTuple


class Reason(NamedTuple):
    """One reason why a device cannot be lent as things stand.

    `rule` is its name in docs/rules.md, or a plugin's; None for what is no rule: the kernel does not answer,
    a plugin fails. `passable`: `allow` passes it (`--allow`). `evidence` are the facts, one a line.
    """

    rule: str | None
    device: str
    reason: str
    evidence: tuple[str, ...] = ()
    passable: bool = False


class Resetting(NamedTuple):
    """How the kernel can reset a PCI device, best first; VFIO's hot reset takes those `along`, too."""

    methods: tuple[str, ...]
    along: tuple[str, ...]


class Explanation(NamedTuple):
    """Whether one device can be lent by a backend now, and all that matters for it.

    `device` is its address or port, or the hostdev's own words where there is none. It is lendable exactly
    if `reasons` is empty. `first` is what a prepare clears away before: records that killed processes left.
    `losses` are what the host uses the device for, the weightiest first; `members` the other devices of its
    IOMMU group, each with its kernel driver; `resets` is None for what is no PCI device.
    """

    device: str
    reasons: tuple[Reason, ...] = ()
    first: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    iommu_group: int | None = None
    members: tuple[tuple[str, str | None], ...] = ()
    resets: Resetting | None = None

    @property
    def is_lendable(self) -> bool:
        """Whether a prepare would lend it now.

        What comes only with the work may still refuse: a recovery that fails, VFIO's own trial where it is
        not foreseen, a plugin's hostdev_before_prepare or hostdev_after_prepare, a driver that has no node
        or arguments for it.
        """
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "device": self.device,
            "lendable": self.is_lendable,
            "reasons": [
                {**reason._asdict(), "evidence": [*reason.evidence]} for reason in self.reasons
            ],
            "first": [*self.first],
            "warnings": [*self.warnings],
            "losses": [*self.losses],
            "iommu_group": self.iommu_group,
            "members": [
                {"address": name, "kernel_driver": driver} for name, driver in self.members
            ],
            "resets": self.resets
            and {"methods": [*self.resets.methods], "along": [*self.resets.along]},
        }
