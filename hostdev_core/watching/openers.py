"""Who has device nodes open: /proc is searched once for a node that was opened or closed, never else."""

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from hostdev_core.kernel.processes import Holder, find_identity

if TYPE_CHECKING:
    from hostdev_core.host import Host

# udev and lsusb keep a node open no longer. And the kernel tells of an open before /proc shows it.
_A_MOMENT = 0.2


class Openers:
    """The other processes that have nodes open, as far as /proc may be read."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._holders: dict[str, tuple[Holder, ...]] = {}  # of every node that is followed
        self._stale: set[str] = set()
        self.due: float | None = None  # when those are searched for, by time.monotonic()

    def follow(self, nodes: Collection[str], *, again: bool) -> None:
        """Know of these nodes and of no others; with `again` what is known of them is stale."""
        new = set(nodes) if again else set(nodes) - self._holders.keys()
        self._holders = {node: self._holders.get(node, ()) for node in nodes}
        self._stale &= self._holders.keys()
        self.touched(new)

    def touched(self, nodes: Collection[str]) -> None:
        """These were opened or closed: find out by whom, in a moment."""
        stale = self._holders.keys() & set(nodes)
        if stale and not self._stale:
            self.due = time.monotonic() + _A_MOMENT
        self._stale |= stale

    def search_if_due(self) -> bool:
        """Find out who has the nodes open that were touched a moment ago; tell whether any were."""
        if self.due is None or time.monotonic() < self.due:
            return False
        self.search()
        return True

    def search(self) -> None:
        """Find out who has the nodes open that were touched."""
        known = {node: find_identity(node) for node in self._stale}
        wanted = {identity for identity in known.values() if identity is not None}
        found = self._host.search_openers(wanted).found if wanted else ()
        for node, identity in known.items():
            holders = {holder for which, holder in found if which == identity}
            self._holders[node] = tuple(sorted(holders))
        self._stale, self.due = set(), None

    def of(self, nodes: Collection[str]) -> tuple[str, ...]:
        """The processes that have one of these nodes open, in words."""
        return tuple(str(holder) for node in nodes for holder in self._holders.get(node, ()))
