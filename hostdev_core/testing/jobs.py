"""Jobs for the harness of disturb.py: which call is disturbed, and how; each in a process of its own."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

SIDES = ("process", "worker", "front")


class Job(NamedTuple):
    """What to run.

    `contract` is a DriverContract by "module:Class", `file` where that module is when it cannot be
    imported by name. `side` is who dies: the "process" that makes the call, its "worker", or the
    "front" that waits for the worker. With "fault" nobody dies: the nth write fails with `errnos`,
    one of them; with several, every later write fails, too, in turn. `again`: each recoverer is
    killed one moment later than the last one, and at the end two recover at once. `without` takes
    a part of hostdev away (mutations.py), to show that its loss is noticed.
    """

    contract: str
    file: str
    scenario: str
    side: str = "process"
    errnos: tuple[int, ...] = ()
    again: bool = False
    without: str = ""


class Report(NamedTuple):
    """How many moments were disturbed, and every time the promise was not kept."""

    moments: int
    losses: list[str]


def disturb(job: Job) -> Report:
    """Run a job in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "hostdev_core.testing.disturb", json.dumps(job)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Report(*json.loads(done.stdout.splitlines()[-1]))
