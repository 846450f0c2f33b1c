"""What a call costs in system calls, counted on a real kernel: not timed."""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache

import pytest

from . import inside_calls, machines
from .guest import Guest
from .world import settled, world

SLACK = 1.05


@cache
def traced(guest: Guest, cards: int) -> dict[str, Counter[str]]:
    """Count the system calls of lending so many cards and of their way back, without further plugins."""
    if guest.system.python != sys.executable:
        pytest.skip("counted with one Python: another one makes other calls")
    before = world(guest)
    names = " ".join(machines.MANY_NICS[:cards])
    command = f"{guest.system.python} -m tests.kernel.inside_calls {names}"
    trace = "/tmp/trace-of-system-calls"
    guest.check(f"HOSTDEV_DISABLE_PLUGINS='*' strace -f -y -o {trace} {command}")
    lines = guest.check(f"cat {trace}; rm {trace}").splitlines()
    assert settled(guest, before) == before
    return inside_calls.count(lines)


def system_calls(guest: Guest, call: str, cards: int) -> int:
    """Those of a call, without what is counted apart: waiting for other threads, and the search of /proc."""
    found = traced(guest, cards)[f"second {call}"]
    return sum(number for name, number in found.items() if name not in {"futex", "/proc"})


# The looks before and after the claim are half of those of a card, its writes and their checks a
# fifth; each of the ledger's transactions takes sixty.
@pytest.mark.parametrize(
    ("call", "first", "further"), [("prepare", 520, 220), ("reattach", 300, 165)]
)
@pytest.mark.parametrize("cards", [1, 2, 8])
def test_system_calls_of_a_call(
    spare: Guest, call: str, first: int, further: int, cards: int
) -> None:
    assert system_calls(spare, call, cards) <= SLACK * (first + further * (cards - 1))


def test_processes_are_searched_once_whatever_is_lent(spare: Guest) -> None:
    """For who has a node of the cards open."""
    few, many = (traced(spare, cards)["second prepare"]["/proc"] for cards in (1, 8))
    assert few > 0
    # A few lines are of each card itself; and processes come and go.
    assert many < 1.3 * few + 8 * 8, (few, many)
