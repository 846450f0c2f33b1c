"""Kills, failures, signals and races at length; prints its figures.

    python -m tests.soak [MINUTES [SEED]]

Every disturbance is tried at every moment of every call, for every driver, in an order of the seed, until
all have or the minutes (20) are over; lanes run in parallel, so that each run meets other orders of
the same moments. Then 64 processes with several threads each fight for 1,000 devices, for a
twentieth of that time. Exits with 1 when anything was lost.
"""

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from hostdev_core.testing.harness.disturbances import DISTURBANCES
from hostdev_core.testing.harness.jobs import Job, Report, run
from hostdev_core.testing.harness.scenarios import SCENARIOS
from tests.contract.test_libxl import TestLibxl
from tests.contract.test_qemu import TestQemu
from tests.contract.test_test import TestSimulated
from tests.races import soak as races

CONTRACTS = (TestQemu, TestLibxl, TestSimulated)
QUADRATIC = ("twice", "in recovery")  # every later moment, too: short calls
AT_ONCE = 4  # disturbances of one job: its process takes half a second to start


def jobs(seed: int) -> list[Job]:
    """All disturbances of every scenario that a driver's contract has, in a random order."""
    found: list[Job] = []
    chance = random.Random(seed)
    for contract in CONTRACTS:
        where = Path(__file__).parent / "contract" / f"{contract.__module__.rpartition('.')[2]}.py"
        for scenario in contract().scenarios():
            short = SCENARIOS[scenario].short
            names = [name for name in DISTURBANCES if short or not name.endswith(QUADRATIC)]
            chance.shuffle(names)
            rest = iter(names)
            while some := tuple(islice(rest, AT_ONCE)):
                name = f"{contract.__module__}:{contract.__name__}"
                found.append(Job(name, str(where), scenario, some))
    chance.shuffle(found)
    return found


def run_all(wanted: Iterable[Job], seconds: float) -> Iterator[Report]:
    """Run jobs side by side; none begins after so many seconds."""
    end, rest, lock = time.monotonic() + seconds, iter(wanted), threading.Lock()

    def work() -> list[Report]:
        done: list[Report] = []
        while time.monotonic() < end:
            with lock:
                job = next(rest, None)
            if job is None:
                break
            done.append(run(job))
            for loss in done[-1].losses:
                print(f"LOST: {job.contract.rpartition(':')[2]}: {loss}", flush=True)
        return done

    with ThreadPoolExecutor(workers := os.cpu_count() or 1) as pool:
        for reports in [pool.submit(work) for _ in range(workers)]:
            yield from reports.result()


def main(minutes: float = 20, seed: int = 0) -> int:
    """Disturb and race; the exit code."""
    start = time.monotonic()
    seed = seed or random.randrange(1, 1_000_000)
    wanted = jobs(seed)
    print(f"seed {seed}: {len(wanted)} jobs, for {minutes:g} minutes", flush=True)
    done = [*run_all(wanted, 60 * minutes)]
    points = sum((Counter(report.points) for report in done), Counter[str]())
    for name in DISTURBANCES:
        print(f"{name:32} {points[name]:8} points")
    print(f"{'all disturbances':32} {sum(points.values()):8} points")
    print(f"{len(done)} of {len(wanted)} jobs, {time.monotonic() - start:.0f} s", flush=True)
    figures = races.run(64, 1000, 3 * minutes, seed)._asdict()
    losses = [*(loss for report in done for loss in report.losses), *figures.pop("losses")]
    print("races:", ", ".join(f"{number} {name}" for name, number in figures.items()))
    print(f"calls or devices lost: {len(losses)}, in {time.monotonic() - start:.0f} s")
    print(*losses, sep="\n", end="")
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
