"""The check: what the host uses, followed down to the devices that are asked for."""

from collections.abc import Iterator, Sequence

from hostdev_core import Device, Host, Refusal
from hostdev_guard.chains import Chains, Use, find_chains, functions_below, node_at
from hostdev_guard.console import Console
from hostdev_guard.network import Interfaces
from hostdev_guard.rules import REASONS
from hostdev_guard.storage import Storage

MOST = 5  # facts that a refusal tells; a host with containers has hundreds of mounts


def refusals(host: Host, devices: Sequence[Device]) -> list[Refusal]:
    """The refusals, by device and then by rule; each has a line of evidence for every use."""
    nodes = {
        device.name: node
        for device in devices
        if (node := node_at(host, f"bus/{device.kind}/devices/{device.name}"))
    }
    facts: dict[tuple[str, str], list[str]] = {}
    for use, chains in _used(host, devices):
        for name, node in nodes.items():
            if node in chains:
                facts.setdefault((name, use.rule), []).append(use.along(chains[node]))
    return [
        Refusal(rule, name, reason, _shortened(facts[name, rule]))
        for name in nodes
        for rule, reason in REASONS.items()
        if (name, rule) in facts
    ]


def _used(host: Host, devices: Sequence[Device]) -> Iterator[tuple[Use, Chains]]:
    """Everything that the host uses, with all that each stands on."""
    storage, interfaces, console = Storage(host), Interfaces(host), Console(host)

    def below(node: str) -> Iterator[str]:
        lower = [*storage.below(node), *interfaces.below(node)]
        yield from lower
        if not any(node.startswith(f"{each}/") for each in lower):  # a partition's disk comes first
            yield from functions_below(host, node)

    known: dict[tuple[str, ...], Chains] = {}
    for use in (*storage.uses(), *interfaces.uses(), *console.uses(devices)):
        if use.nodes not in known:
            known[use.nodes] = find_chains(use.nodes, below)
        yield use, known[use.nodes]


def _shortened(facts: list[str]) -> tuple[str, ...]:
    facts = [*dict.fromkeys(facts)]
    more = len(facts) - MOST
    return tuple(facts) if more <= 0 else (*facts[:MOST], f"and {more} more")
