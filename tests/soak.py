"""Kills, failures, signals and races at length; prints its figures.

    python -m tests.soak [ROUNDS]

Every disturbance meets every moment of every call, for every driver; lanes run in parallel, so that
each round meets other orders of the same moments. Then 64 processes with several threads each fight
for 1,000 devices, for a minute a round. Exits with 1 when anything was lost.
"""

import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hostdev_core.testing.disturb import DISTURBANCES
from hostdev_core.testing.jobs import Job, Report, disturb
from hostdev_core.testing.scenarios import SCENARIOS
from tests.contract.test_libxl import TestLibxl
from tests.contract.test_qemu import TestQemu
from tests.contract.test_test import TestSimulated
from tests.races import soak as races

CONTRACTS = (TestQemu, TestLibxl, TestSimulated)
QUADRATIC = ("twice", "in recovery")  # for every moment, every later one: short calls only


def jobs() -> list[Job]:
    """All disturbances of every scenario that a driver's contract has."""
    found: list[Job] = []
    for contract in CONTRACTS:
        where = Path(__file__).parent / "contract" / f"{contract.__module__.rpartition('.')[2]}.py"
        for scenario in contract().scenarios():
            names = tuple(
                name
                for name in DISTURBANCES
                if SCENARIOS[scenario].short or not name.endswith(QUADRATIC)
            )
            found.append(
                Job(f"{contract.__module__}:{contract.__name__}", str(where), scenario, names)
            )
    return found


def disturb_all(rounds: int) -> Report:
    """Run all jobs this many times, side by side."""
    points, losses = Counter[str](), list[str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = jobs() * rounds
        for job, done in zip(wanted, pool.map(disturb, wanted), strict=True):
            where = f"{job.contract.rpartition(':')[2]}, {job.scenario}"
            print(
                f"{where}: {sum(done.points.values())} points, {len(done.losses)} lost", flush=True
            )
            points.update(done.points)
            losses += done.losses
    return Report(points, losses)


def main(rounds: int) -> int:
    """Disturb and race; the exit code."""
    start = time.monotonic()
    points, losses = disturb_all(rounds)
    for name, number in points.items():
        print(f"{name:32} {number:8} points")
    print(f"{'all disturbances':32} {sum(points.values()):8} points", flush=True)
    for seed in range(rounds):
        figures = races.run(64, 1000, 60.0, seed)._asdict()
        losses += figures.pop("losses")
        print("races:", ", ".join(f"{number} {name}" for name, number in figures.items()))
    print(f"calls or devices lost: {len(losses)}, in {time.monotonic() - start:.0f} s")
    print(*losses, sep="\n", end="")
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1))
