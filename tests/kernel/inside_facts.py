"""Run the facts of facts/ on the guest's kernel; those of a locked device: inside_locked.py."""

from __future__ import annotations

from collections.abc import Iterable

from hostdev_core.kernel.sysfs import Sysfs

from . import facts
from .inside_world import state

Answers = dict[str, tuple[list[object], list[object]]]


def run_facts(lists: Iterable[str], address: str) -> Answers:
    """What each of the facts of these lists returned, and what is expected."""
    home = state(address).kernel_driver or ""
    every: list[facts.Fact] = [fact for name in lists for fact in getattr(facts, name)]
    return {fact.name: (fact.run(Sysfs(), address, home), fact.expected_here()) for fact in every}
