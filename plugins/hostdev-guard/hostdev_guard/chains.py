"""Chains of evidence: from what the host uses down to the functions that can be lent.

A node is a directory of sysfs, below its root ("devices/pci0000:00/0000:00:1f.2/.../block/sda").
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from hostdev_core import Host

Below = Callable[[str], Iterable[str]]
Chains = dict[str, tuple[str, ...]]
PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
USB = re.compile(r"[0-9]+-[0-9]+(?:\.[0-9]+)*", re.A)


class Use(NamedTuple):
    """What the host uses, in words ("/ is on"), the nodes it stands on, and the rule that says so."""

    rule: str
    words: str
    nodes: tuple[str, ...]

    def along(self, chain: Iterable[str]) -> str:
        """The sentence: "/ is on dm-0, on nvme0n1, on 0000:01:00.0"."""
        return f"{self.words} {', on '.join(chain)}"


def find_chains(nodes: Iterable[str], below: Below) -> Chains:
    """All that the nodes stand on, themselves too, each with the names on a shortest way to it."""
    chains: Chains = {node: (name_of(node),) for node in nodes}
    waiting = deque(chains)
    while waiting:
        node = waiting.popleft()
        for lower in below(node):
            if lower not in chains:
                chains[lower] = (*chains[node], name_of(lower))
                waiting.append(lower)
    return chains


def name_of(node: str) -> str:
    """How the kernel calls it; a slash in a name is written "!" in sysfs."""
    return node.rpartition("/")[2].replace("!", "/")


def node_at(host: Host, path: str) -> str | None:
    """The node that a path of sysfs leads to; None when there is none below /sys/devices."""
    real = host.sysfs.real_path(path)
    return real if real is not None and real.startswith("devices/") else None


def nodes_at(host: Host, paths: Iterable[str]) -> Iterator[str]:
    """The nodes of those paths that lead to one."""
    for path in paths:
        if node := node_at(host, path):
            yield node


def functions_below(host: Host, node: str) -> Iterator[str]:
    """The nearest PCI function or USB device that a node hangs on; for a VF its PF, too."""
    yield from nodes_at(host, [f"{node}/physfn"] if PCI.fullmatch(name_of(node)) else ())
    parts = node.split("/")[:-1]
    while parts:
        if PCI.fullmatch(parts[-1]) or USB.fullmatch(parts[-1]):
            yield "/".join(parts)
            return
        parts.pop()
