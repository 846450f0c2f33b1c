"""Every rule of the core by name: what it refuses and why. docs/rules.md tells the same to people.

A risk can be passed, with `allow`: it leaves as a Refusal, with those of plugins, in one VetoError.
What nobody can pass is a DeviceError of its own kind. Both carry the rule's name and the evidence.
"""

from typing import NamedTuple

from hostdev_core.model.spelling import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Rule(NamedTuple):
    """One rule; `passable` by `allow` and `--allow` when what it refuses is a risk, not a fact."""

    name: str
    refuses: str
    passable: bool = False


RULES = {
    rule.name: rule
    for rule in (
        Rule("unknown-device", "a device that is not there"),
        Rule("ambiguous-device", "USB ids that several devices have"),
        Rule("lent", "a device, or one of its relatives, that the ledger says somebody has"),
        Rule("held", "a device that a process has through VFIO, or a running guest"),
        Rule("in-use", "a device that the host or a process uses", passable=True),
        Rule(
            "other-namespace",
            "a network card whose interface is in another network namespace",
            passable=True,
        ),
        Rule("bridge", "a PCI bridge: what is behind it can be lent"),
        Rule("header-type", "a device whose header type PCI does not define"),
        Rule("no-answer", "a device whose configuration space reads all ones"),
        Rule("hub", "a USB hub: what is plugged into it can be lent"),
        Rule("group-not-viable", "a device whose IOMMU group has members on host drivers"),
        Rule("virtual-functions", "a physical function that has virtual functions"),
        Rule("physical-function", "a virtual function whose physical function is lent or on VFIO"),
        Rule("functions-below", "a device whose driver has made PCI functions of its own"),
        Rule("together", "a request for a device and for what it takes along"),
        Rule("not-detached", "an unmanaged device that is on its host driver"),
        Rule("override-text", "a driver_override that could not be put back byte by byte"),
        Rule("no-iommu", "a device without an IOMMU group, where the hypervisor needs one"),
        Rule(
            "no-isolation",
            "a device that VFIO has without any IOMMU (no-IOMMU mode)",
            passable=True,
        ),
        Rule("reserved-regions", "a device whose memory the firmware has mapped", passable=True),
        Rule("vfio-refuses", "a device whose IOMMU group VFIO itself refused in a trial"),
        Rule("no-reset", "a device without a reset method, where a reset is required"),
        Rule("pci-only", "a USB device, for a hypervisor that takes PCI devices only"),
        Rule("stub", "a stub driver that is not there, is disabled or does not fit"),
        Rule("no-node", "a device whose node, which the guest opens, does not appear"),
        Rule(
            "module-ids",
            "loading a module that would bind devices without a driver: by its ids=, their"
            " driver_override, or a module that comes along",
        ),
        Rule("host-driver", "a reset under a host driver, which does not expect one"),
    )
}


def explain_vain(names: "Iterable[str]", of_plugins: "Collection[str] | None") -> "list[str]":
    """Word warnings about names in an `allow` that refused nothing and are not rules that can be passed.

    `of_plugins` are the rules that plugins refuse by; None when they are not known.
    """
    told: list[str] = []
    for name in sorted(names):
        if name in RULES and not RULES[name].passable:
            told.append(f"rule {name!r} is no risk but a fact, and cannot be passed")
        elif name not in RULES and of_plugins is not None and name not in of_plugins:
            known = sorted({*of_plugins, *(rule.name for rule in RULES.values() if rule.passable)})
            near = nearest(name, known)
            meant = f"did you mean {near!r}? " if near else ""
            told.append(f"nobody knows a rule {name!r}; {meant}there are: {', '.join(known)}")
    return told


class Refusal(NamedTuple):
    """A plugin's no: `rule` is the name that `allow` passes, `device` an address.

    `reason` is for people; `evidence` are the facts behind it, one a line.
    """

    rule: str
    device: str
    reason: str
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        chain = f" ({'; '.join(self.evidence)})" if self.evidence else ""
        return f"{self.device}: {self.reason}{chain} [{self.rule}]"
