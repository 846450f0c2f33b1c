"""Find the risks of taking a device: how the host uses it, looked up once, before anything is written.

A use is a process that has a node of it open, a block device made of its disks, a file system or swap on
them, a bridge or the like on its interfaces, and an interface in another network namespace. An interface
that is up, or a disk with data on it, does not count. Plugins know what else the host depends on; a use
that one of them has named already is not named twice.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from hostdev_core.errors import VetoError
from hostdev_core.host import Host
from hostdev_core.inventory.holders import find_lasting
from hostdev_core.inventory.users import Dependents, Node, Use, find_hanging
from hostdev_core.kernel.processes import Search, printable
from hostdev_core.model.device import Device
from hostdev_core.model.rulebook import Refusal, explain_vain
from hostdev_core.planning.request import Decision, Question

_WORDS = re.compile(r"[^\s,;()]+")


@attrs.frozen
class Risks:
    """The refusals, warnings about uses that could not be looked for, and what is below each device."""

    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    dependents: Mapping[str, Dependents] = attrs.field(factory=dict[str, Dependents])


def check_risks(
    question: Question, decision: Decision
) -> tuple[list[str], list[str], Mapping[str, Dependents]]:
    """Raise one VetoError for all refusals, of the core and of plugins, whose rule `allow` does not pass.

    Otherwise return two lists of warnings: the core's refusals that were passed, and names in `allow` by
    which nothing was refused; and what is below each device, by its name.
    """
    hooks, request = question.lender.hooks, question.request
    said = hooks.check(request.domain, decision.devices)
    found = find_risks(question.host, decision.devices, said)
    own = [*question.risks, *found.refusals]
    allowed = {
        device.name: hostdev.allow for hostdev, device in decision.pairs if device is not None
    }
    raise_standing(r for r in [*own, *said] if r.rule not in allowed.get(r.device, request.allow))
    vain = request.allow - {refusal.rule for refusal in [*own, *said]}
    passed = [*found.warnings, *(f"passed: {refusal}" for refusal in own)]
    return passed, explain_vain(vain, hooks.rules() if vain else None), found.dependents


def find_risks(host: Host, devices: Iterable[Device], said: Sequence[Refusal] = ()) -> Risks:
    """Find the uses of these devices; `said` are the refusals of plugins, whose words are not repeated."""
    hanging = {device.name: find_hanging(host, device) for device in devices}
    nodes = {name: found.nodes for name, found in hanging.items()}
    search = find_lasting(host, {node.identity for found in nodes.values() for node in found})
    refusals: list[Refusal] = []
    for name, (own, uses, elsewhere, _) in hanging.items():
        # The words of the plugins' refusals: a use that has its name among them is named already.
        told = {
            word
            for refusal in said
            if refusal.device == name
            for text in (refusal.reason, *refusal.evidence)
            for word in _WORDS.findall(text)
        }
        refusals += _in_use(name, own, [use for use in uses if not use.names & told], search)
        if elsewhere:
            refusals.append(_other_namespace(host, name))
    dependents = {name: found.dependents for name, found in hanging.items()}
    return Risks(tuple(refusals), _warnings(nodes, search), dependents)


def _in_use(name: str, nodes: Sequence[Node], uses: Sequence[Use], search: Search) -> list[Refusal]:
    mine = {node.identity for node in nodes}
    holders = sorted({holder for known, holder in search.found if known in mine})
    evidence = [*map(str, holders), *(use.words for use in uses)]
    if search.cut and mine and not holders:
        evidence.append(f"others may have it open: {search.cut}")
    if not evidence:
        return []
    reason = "it is in use; end that first"
    return [Refusal("in-use", name, reason, tuple(map(printable, evidence)))]


def _other_namespace(host: Host, name: str) -> Refusal:
    spaces = host.network_namespaces()
    evidence = [f"the net directory of {name} does not show all of its interfaces"]
    if spaces:
        evidence.append(f"there are those of {', '.join(spaces)}")
    return Refusal(
        "other-namespace",
        name,
        "an interface of it is in another network namespace, and would be taken from there; move it"
        " back first",
        tuple(evidence),
    )


def _warnings(nodes: Mapping[str, Sequence[Node]], search: Search) -> tuple[str, ...]:
    if not search.hidden:
        return ()
    names = ", ".join(name for name, found in nodes.items() if found)
    return (f"who has {names} open was not seen in full: {search.hidden}",)


def raise_standing(refusals: Iterable[Refusal]) -> None:
    """Raise one VetoError for the refusals that nothing passes; without any, go on."""
    standing = list(refusals)
    if standing:
        raise VetoError("; ".join(str(refusal) for refusal in standing), refusals=standing)
