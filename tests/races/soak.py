"""Many processes and threads on one store and one simulated kernel, killed and replaced meanwhile.

    python -m tests.races.soak [PROCESSES [DEVICES [SECONDS [SEED]]]]

Prints figures and exits with 1 when anything was lost.
"""

import sys

from hostdev_core.testing.harness.jobs import run_apart
from tests.races.log import Figures
from tests.races.nursery import Job


def run(processes: int, devices: int, seconds: float, seed: int, *, without: str = "") -> Figures:
    """Let them fight, in processes of their own; `without` names one of the nursery's MUTATIONS."""
    job = Job(processes, devices, seconds, seed, without)
    return Figures(*run_apart("tests.races.nursery", job))


def main(words: list[str]) -> int:
    """The command; its exit code."""
    processes, devices, seconds, seed = [*map(int, words), *(64, 1000, 60, 1)[len(words) :]]
    figures = run(processes, devices, seconds, seed)
    for name, value in figures._asdict().items():
        print(f"{name:12} {len(value) if name == 'losses' else value:8}")
    for loss in figures.losses:
        print(loss)
    return 1 if figures.losses else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
