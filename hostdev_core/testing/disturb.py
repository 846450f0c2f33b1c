"""The harness: one call, disturbed at every moment, each time on a machine of its own.

    python -m hostdev_core.testing.disturb JOB

runs one job of jobs.py (JSON) and prints its report. It enumerates: the first moment, the
second, ... until the call comes through undisturbed. After each, a new process recovers, and the
world must be the one before the call or the one after it: the call is all or nothing. The driver is
imported by name, here, in a process without threads that may fork.
"""

import errno
import importlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from hostdev_core import Connection, HostdevError
from hostdev_core import operation as operations
from hostdev_core.operation import is_alive  # as it is, whatever is taken away later
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.base import ContractBase
from hostdev_core.testing.jobs import Job, Report
from hostdev_core.testing.mutations import take_away
from hostdev_core.testing.scenarios import SCENARIOS, Scenario, make_machine

MOST_MOMENTS = 10_000
World = dict[str, Any]
Watcher = Callable[[str], None]


class Disturber:
    """Carries out one job."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.scenario: Scenario = SCENARIOS[job.scenario]
        self._contract = _load(job)
        self._folder = folder
        self._hosts = count()
        self.losses: list[str] = []
        self.moments = 0
        host = self._fresh()
        self._before = world(host)
        try:
            self._call(host, self.scenario.action)
        except HostdevError as error:
            self.losses.append(f"{job.scenario}: undisturbed: {error}")
        self._after = world(host)
        if self.scenario.goes_home:
            untouched = make_machine(self._contract.make_host(folder / "untouched"))
            if wrong := differences(world(untouched), self._after):
                self.losses.append(f"{job.scenario}: undisturbed: {wrong}")

    def run(self) -> Report:
        """Disturb every moment."""
        meet = self._meet_faults if self.job.side == "fault" else self._meet_death
        for moment in range(1, MOST_MOMENTS):
            if not meet(moment):
                break
        else:
            raise AssertionError("the call never came through")
        return Report(self.moments, self.losses)

    def _fresh(self) -> SimulatedHost:
        """A new machine on which has happened what is before the call."""
        host = make_machine(self._contract.make_host(self._folder / str(next(self._hosts))))
        with self._contract.connect(host) as conn:
            self.scenario.before(conn)
        return host

    def _call(
        self,
        host: SimulatedHost,
        action: Callable[[Connection], object],
        watcher: Watcher | None = None,
        *,
        worker: bool = False,
    ) -> None:
        with self._contract.connect(host, worker=worker) as conn:
            conn.host.watch(watcher)
            action(conn)

    # Deaths.

    def _meet_death(self, moment: int) -> bool:
        """Kill at this moment; False when the call has none so late."""
        host = self._fresh()
        died = self._die(host, moment, self.scenario.action, self.job.side)
        if died is None:
            return False
        self.moments += 1
        if self.job.again:
            self._die_again(host, moment, died)
        else:
            self._together(host, 1)
            self._check(host, f"{self.job.side} killed {died} (moment {moment})")
        return True

    def _die_again(self, host: SimulatedHost, moment: int, died: str) -> None:
        """Kill each recoverer later than the last one, until one comes through; then two at once."""
        for second in range(1, MOST_MOMENTS):
            again = self._die(host, second, Connection.recover, "process")
            if again is None:
                break
            self.moments += 1
        self._together(host, 2)
        self._check(host, f"killed {died} (moment {moment}), and its recoverers")

    def _die(
        self, host: SimulatedHost, moment: int, action: Callable[[Connection], object], side: str
    ) -> str | None:
        """Let a child make a call and die at its nth moment: which it was; None if there is none."""
        reader, writer = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._live(host, moment, action, side, writer)
        os.close(writer)
        said = b""
        while part := os.read(reader, 4096):  # ends when the worker has, too
            said += part
        os.close(reader)
        os.waitpid(pid, 0)
        self._let_die(host)
        return said.decode() or None

    def _let_die(self, host: SimulatedHost) -> None:
        """A worker that was killed lets go of its pipe a moment before its locks."""
        end = time.monotonic() + 10.0
        while time.monotonic() < end and any(
            is_alive(host.state_dir, name) for name in operations.list_ids(host.state_dir)
        ):
            time.sleep(0.001)

    def _live(
        self,
        host: SimulatedHost,
        moment: int,
        action: Callable[[Connection], object],
        side: str,
        writer: int,
    ) -> NoReturn:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 2)
            me = os.getpid()
            moments = count(1)

            def watcher(what: str) -> None:
                if next(moments) == moment:
                    os.write(writer, what.encode())
                    os.kill(me if side == "front" else os.getpid(), signal.SIGKILL)

            self._call(host, action, watcher, worker=side != "process")
        finally:
            os._exit(0)

    def _together(self, host: SimulatedHost, number: int) -> None:
        """This many new processes recover at once."""
        pids: list[int] = []
        sys.stdout.flush()
        for _ in range(number):
            pid = os.fork()
            if pid == 0:
                try:
                    self._call(SimulatedHost.open(host.root), Connection.recover)
                finally:
                    os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)

    def _check(self, host: SimulatedHost, what: str) -> None:
        now = world(host)
        if now not in (self._before, self._after):
            found = min((differences(w, now) for w in (self._before, self._after)), key=len)
            self.losses.append(f"{self.job.scenario}: {what}: {found}")

    # Faults.

    def _meet_faults(self, moment: int) -> bool:
        """Let a write fail; what was not undone must be stuck, with the reason."""
        host = self._fresh()
        failed: list[str] = []
        writes, errnos = count(1), self.job.errnos

        def watcher(what: str) -> None:
            if not what.startswith("before write"):
                return
            number = next(writes)
            if number == moment or (number > moment and len(errnos) > 1):
                failed.append(what)
                fail(errnos[(number - moment) % len(errnos)])

        with suppress(HostdevError):
            self._call(host, self.scenario.action, watcher)
        if not failed:
            return False
        self.moments += 1
        what = f"{errno.errorcode[errnos[0]]} at {failed[0]} (write {moment})"
        self._check_told(host, what)
        self._together(host, 1)
        self._check(host, what)
        return True

    def _check_told(self, host: SimulatedHost, what: str) -> None:
        """Whatever is neither as before nor as after has a record that says why."""
        now = world(host)
        if now in (self._before, self._after):
            return
        if self.job.scenario.startswith("prepare") and len(self.job.errnos) == 1:
            self.losses.append(f"{self.job.scenario}: {what}: not undone")
        if not any(value["stuck"] for name, value in now.items() if name.startswith("record ")):
            self.losses.append(f"{self.job.scenario}: {what}: lost and nobody says why")


def fail(number: int) -> NoReturn:
    """Answer as the kernel does."""
    raise OSError(number, os.strerror(number))


def world(host: SimulatedHost) -> World:
    """The kernel's side, the records without what differs from run to run, and the lock files."""
    found: World = dict(host.snapshot())
    slots = found["pciback"]["slots"]
    found["pciback"] = {"slots": sorted(slots)}
    for record in host.ledger.records():
        values = record._replace(op=record.op and "an operation", since=0.0, inode=None)._asdict()
        values["stuck"] = bool(record.stuck)
        if record.owner is not None:
            uri = record.owner.uri.replace(host.root, "ROOT")
            values["owner"] = record.owner._replace(uri=uri)
        found[f"record {record.kind} {record.address}"] = values
    for name in operations.list_ids(host.state_dir):
        found[f"operation {name}"] = operations.describe(host.state_dir, name)
    return found


def differences(wanted: World, now: World) -> str:
    """What is not as wanted, for a person."""
    names: Iterable[str] = sorted(
        name for name in {*wanted, *now} if wanted.get(name) != now.get(name)
    )
    return "; ".join(f"{name}: {now.get(name)}, wanted {wanted.get(name)}" for name in names)


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
        report = Disturber(job, Path(folder)).run()
    sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
