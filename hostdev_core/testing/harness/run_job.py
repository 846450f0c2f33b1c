"""The process of one job; `python -m hostdev_core.testing.harness.run_job JOB` (as JSON) prints its report.

It enumerates moments: the first, the second, ... until the call comes through undisturbed. The contract is
imported by name, here, since this process has no threads and may fork.
"""

import importlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from hostdev_core.testing.contract_parts.base import ContractBase
from hostdev_core.testing.harness.disturbances import DISTURBANCES, Disturbance
from hostdev_core.testing.harness.jobs import Job, Report
from hostdev_core.testing.harness.trial import Trial

MOST_MOMENTS = 10_000


def carry_out(job: Job, folder: Path) -> Report:
    """Try each disturbance of a job at every moment, or at some of them."""
    trial = Trial(_load(job), job.scenario, folder)
    moments = range(1 if job.every == 1 else 2, MOST_MOMENTS, job.every)
    points = {name: _disturb(trial, DISTURBANCES[name], moments) for name in job.disturbances}
    return Report(points, trial.losses)


def _disturb(trial: Trial, disturb: Disturbance, moments: Iterable[int]) -> int:
    points = 0
    for moment in moments:
        more = disturb(trial, moment)
        if not more:
            return points
        points += more
    raise AssertionError("the call never came through")


def _load(job: Job) -> ContractBase:
    module, _, name = job.contract.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError:
        found = _load_file(module, job.file)
    contract: ContractBase = getattr(found, name)()
    return contract


def _load_file(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: pickle looks classes up there
    spec.loader.exec_module(module)
    return module


def _set_up(function: str = "", *arguments: str) -> None:
    """Call the function of a job's `setup`, "module:name", where it has one."""
    if function:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)


def main(words: Sequence[str]) -> None:
    """Run the job and print its report."""
    job = Job(*json.loads(words[0]))
    _set_up(*job.setup)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        report = carry_out(job, Path(folder))
    sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
