"""Kills and faults at every moment of every call, for every driver, again and again; prints figures.

    python -m tests.soak [ROUNDS]

Lanes run in parallel, so that each round meets other orders of the same moments. Exits with 1 when
anything was lost.
"""

import errno
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hostdev_core.testing.jobs import SIDES, Job, disturb

CONTRACTS = {"qemu": "TestQemu", "libxl": "TestLibxl", "test": "TestSimulated"}
ERRNOS = [errno.EBUSY, errno.ENODEV, errno.EIO, errno.EINVAL, errno.EPERM, errno.EAGAIN]


def jobs() -> list[Job]:
    """Every side, every recoverer, every errno once, and pairs of errnos from then on."""
    from hostdev_core.testing.scenarios import SCENARIOS

    found: list[Job] = []
    for name, contract in CONTRACTS.items():
        file = str(Path(__file__).parent / "contract" / f"test_{name}.py")
        for scenario in SCENARIOS:
            job = Job(f"tests.contract.test_{name}:{contract}", file, scenario)
            found += [job._replace(side=side) for side in SIDES]
            found.append(job._replace(again=True))
            pairs = zip(ERRNOS, [*ERRNOS[1:], ERRNOS[0]], strict=True)
            faults = [*((one,) for one in ERRNOS), *pairs]
            found += [job._replace(side="fault", errnos=errnos) for errnos in faults]
    return found


def main(rounds: int) -> int:
    """Run all jobs this many times; the exit code."""
    start, points, losses = time.monotonic(), Counter[str](), list[str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = jobs() * rounds
        for job, done in zip(wanted, pool.map(disturb, wanted), strict=True):
            kind = "recovery killed" if job.again else job.side
            points[kind] += done.moments
            losses += done.losses
    for kind, number in sorted(points.items()):
        print(f"{kind:16} {number:8} moments")
    print(f"calls or devices lost: {len(losses)}, in {time.monotonic() - start:.0f} s")
    for loss in losses:
        print(loss)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1))
