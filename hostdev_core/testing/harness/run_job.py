"""The harness: one call, disturbed at every moment of it, each time on a machine of its own.

    python -m hostdev_core.testing.harness.run_job JOB

runs one job of jobs.py (JSON) and prints its report. It enumerates: the first moment, the
second, ... until the call comes through undisturbed. The driver is imported by name, here, in a
process without threads that may fork.
"""

import errno
import importlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hostdev_core.testing.contract_parts.base import ContractBase
from hostdev_core.testing.harness import card_swaps as exchanges
from hostdev_core.testing.harness import kills as deaths
from hostdev_core.testing.harness import ledger_errors as store_failures
from hostdev_core.testing.harness import signals
from hostdev_core.testing.harness import write_errors as failures
from hostdev_core.testing.harness.arena import Arena
from hostdev_core.testing.harness.jobs import ERRNOS, Job, Report
from hostdev_core.testing.harness.mutations import take_away
from hostdev_core.testing.harness.write_errors import (
    failing,
    failing_in_recovery,
    failing_twice,
    refuse,
    refuse_in_turn,
)

MOST_MOMENTS = 10_000
# Disturbs the nth moment: how many points that were, none when the call has no moment so late.
Disturbance = Callable[[Arena, int], int]


def _refusing(*names: str) -> Callable[[], failures.Strike]:
    return lambda: refuse(*(getattr(errno, name) for name in names))


DISTURBANCES: dict[str, Disturbance] = {
    "process killed": deaths.killed("process"),
    "worker killed": deaths.killed("worker"),
    "waiting process killed": deaths.killed("front"),
    "recoverers killed": deaths.recoverers_killed,
    **{name: failing(_refusing(name)) for name in ERRNOS},
    "some errno": failing(refuse_in_turn(*(getattr(errno, name) for name in ERRNOS))),
    **{f"{a} and {b} from then on": failing(_refusing(a, b), on=True)
       for a, b in zip(ERRNOS, [*ERRNOS[1:], ERRNOS[0]], strict=True)},
    **{f"{name} twice": failing_twice(_refusing(name)) for name in ERRNOS},
    **{f"{name} in recovery": failing_in_recovery(_refusing(name)) for name in ERRNOS},
    "no effect": failing(lambda: failures.pretend),
    "no effect from then on": failing(lambda: failures.pretend, on=True),
    "no effect in recovery": failing_in_recovery(lambda: failures.pretend),
    "another driver": failing(lambda: failures.intrude),
    "another driver in recovery": failing_in_recovery(lambda: failures.intrude),
    "exchanged": exchanges.exchanged,
    "ledger full": store_failures.ledger(store_failures.Full),
    "ledger full once": store_failures.ledger(store_failures.FullOnce),
    "ledger read-only": store_failures.ledger(store_failures.ReadOnly),
    "ledger damaged": store_failures.ledger(store_failures.Damaged),
    "ledger newer": store_failures.ledger(store_failures.Newer),
    "ledger locked": store_failures.ledger(store_failures.Locked),
    "SIGINT": signals.command_stopped(signal.SIGINT),
    "SIGTERM": signals.command_stopped(signal.SIGTERM),
    "SIGHUP": signals.command_stopped(signal.SIGHUP),
    "two signals": signals.command_stopped_twice,
    "KeyboardInterrupt": signals.call_interrupted,
}  # fmt: skip


def carry_out(job: Job, folder: Path) -> Report:
    """Let every disturbance of a job meet every moment, or some of them."""
    arena = Arena(_load(job), job.scenario, folder)
    moments = range(1 if job.every == 1 else 2, MOST_MOMENTS, job.every)
    points = {name: _disturb(arena, DISTURBANCES[name], moments) for name in job.disturbances}
    return Report(points, arena.losses)


def _disturb(arena: Arena, meet: Disturbance, moments: Iterable[int]) -> int:
    points = 0
    for moment in moments:
        met = meet(arena, moment)
        if not met:
            return points
        points += met
    raise AssertionError("the call never came through")


def _load(job: Job) -> ContractBase:
    module, _, name = job.contract.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError:
        spec = importlib.util.spec_from_file_location(module, job.file)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[module] = found
        spec.loader.exec_module(found)
    contract: ContractBase = getattr(found, name)()
    return contract


def main(words: Sequence[str]) -> None:
    """The process of a job."""
    job = Job(*json.loads(words[0]))
    take_away(job.without)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        report = carry_out(job, Path(folder))
    sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
