"""Jobs for the harness of run_job.py: which call is disturbed, and how; each in a process of its own."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

ERRNOS = ("EBUSY", "ENODEV", "EIO", "EINVAL", "EPERM", "EAGAIN")


class Job(NamedTuple):
    """What to run.

    `contract` is a DriverContract by "module:Class", `file` where that module is when it cannot be
    imported by name. `disturbances` are names of run_job.py. `without` takes a part of hostdev
    away (mutations.py), to show that its loss is noticed. With `every`, one moment in so many is
    met, from the second on: a short run.
    """

    contract: str
    file: str
    scenario: str
    disturbances: tuple[str, ...]
    without: str = ""
    every: int = 1


class Report(NamedTuple):
    """How many points each disturbance met, and every time that the promise was not kept."""

    points: dict[str, int]
    losses: list[str]


def disturb(job: Job) -> Report:
    """Run a job in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "hostdev_core.testing.harness.run_job", json.dumps(job)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Report(*json.loads(done.stdout.splitlines()[-1]))
