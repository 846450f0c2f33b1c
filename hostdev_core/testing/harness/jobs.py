"""Jobs: a contract's scenario with some disturbances, each job in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

ERRNOS = ("EBUSY", "ENODEV", "EIO", "EINVAL", "EPERM", "EAGAIN")


class Job(NamedTuple):
    """A scenario and its disturbances, for `run`.

    `contract` is a DriverContract by "module:Class", `file` where that module is when it cannot be
    imported by name. `disturbances` are names of disturbances.py. With `every`, one moment in so many is
    disturbed, from the second on: a short run. `setup` is a function by "module:name" with its arguments,
    called in the job's process before anything else: a test breaks the code there to see that it is noticed.
    """

    contract: str
    file: str
    scenario: str
    disturbances: tuple[str, ...]
    every: int = 1
    setup: tuple[str, ...] = ()


class Report(NamedTuple):
    """How many points each disturbance had, and every time that the promise was not kept."""

    points: dict[str, int]
    losses: list[str]


def run(job: Job) -> Report:
    """Run a job in a process of its own."""
    return Report(*run_apart("hostdev_core.testing.harness.run_job", job))


def run_apart(module: str, job: tuple[Any, ...]) -> list[Any]:
    """Run a module in a process of its own, which gets a job and prints its result as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(job)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return result
