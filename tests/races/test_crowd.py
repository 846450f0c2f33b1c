"""Many processes and threads on one host, killed and replaced: nothing is lost, and it would be noticed."""

import pytest

from tests.races.nursery import MUTATIONS
from tests.races.soak import run

pytestmark = pytest.mark.timeout(400)  # who is deadlocked is found out before


def test_nothing_is_lost_for_a_moment() -> None:
    figures = run(4, 12, 2.0, seed=2)
    assert figures.losses == []
    assert figures.operations > 0


@pytest.mark.long
def test_nothing_is_lost() -> None:
    figures = run(6, 24, 8.0, seed=1)
    assert figures.losses == []
    assert figures.operations > 0
    assert figures.kills > 0
    assert figures.looks > 0


@pytest.mark.long
@pytest.mark.parametrize("part", MUTATIONS)
def test_a_part_that_is_missing_is_noticed(part: str) -> None:
    """At the first try, as a rule; a slow machine, where less happens, has more and more time."""
    assert any(run(8, 13, 4.0 * tries, tries, without=part).losses for tries in range(1, 9))
