"""A call costs what its own devices do, not what the host and others have; counted, not timed."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the budget is of Python 3.11; others count other calls"
)
SLACK = 1.05
CHECKOUT = Path(__file__).parents[2]


@cache
def count(devices: int, records: int, cards: int) -> dict[str, int]:
    """Count in a process of its own, in which nothing else runs."""
    words = [sys.executable, "-m", "tests.speed.budget", *map(str, (devices, records, cards))]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("cards", [1, 2, 8])
def test_calls_of_a_prepare_and_a_reattach(cards: int) -> None:
    found = count(16, 10, cards)
    assert found["prepare"] <= SLACK * (2000 + 600 * cards), found
    assert found["reattach"] <= SLACK * (1500 + 500 * cards), found


def test_other_devices_of_the_host_cost_nothing() -> None:
    few, many = count(16, 10, 1), count(1024, 10, 1)
    for name in few:
        assert many[name] <= few[name] + 30, (name, few, many)  # a thread more or less that waits


@pytest.mark.parametrize("records", [1000, pytest.param(100_000, marks=pytest.mark.long)])
def test_records_of_others_cost_nothing(records: int) -> None:
    few, many = count(16, 10, 1), count(16, records, 1)
    for name in few:
        assert many[name] <= few[name] + 30, (name, few, many)
