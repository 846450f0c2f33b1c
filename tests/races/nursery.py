"""The process that starts the callers, kills and replaces them, plugs cards, and watches.

    python -m tests.races.nursery JOB

It has no threads, so that it may fork. What it takes away of hostdev for a demonstration is gone in
all its children.
"""

import ctypes
import faulthandler
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, NoReturn

from hostdev_core import HostdevError
from hostdev_core.lending import claim as claims
from hostdev_core.model.record import Phase, Record
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import connect
from tests.races.caller import Caller
from tests.races.log import Figures, Log
from tests.races.machine import make_machine, plug
from tests.races.observer import Observer

PR_SET_CHILD_SUBREAPER = 36
URIS = ("qemu:///system", "other:///system")
THREADS = 3
PATIENCE = 120.0  # seconds: a process that is at work so long after the end is deadlocked


class Job(NamedTuple):
    """How many processes, on how many devices, how long, and what is taken away meanwhile."""

    processes: int
    devices: int
    seconds: float
    seed: int
    without: str = ""


def _no(*args: Any, **options: Any) -> None:
    """Instead of an answer."""


MUTATIONS: dict[str, Callable[[], tuple[object, str, object]]] = {
    "the conflicts of a claim": lambda: (claims, "check_free", _no),
    "the liveness of operations": lambda: (operations, "is_alive", _no),
}


class Nursery:
    """Carries out one job."""

    def __init__(self, job: Job, folder: str) -> None:
        self._job = job
        self._root = f"{folder}/host"
        self._shelf = make_machine(self._root, job.devices)
        self._host = SimulatedHost.open(self._root)
        self._log = Log(f"{folder}/log")
        os.mkdir(f"{folder}/log")
        self._observer = Observer(self._host, self._shelf, job.seed)
        self._random = random.Random(job.seed)
        self._born = 0
        self._until = time.time() + job.seconds
        self._children: list[int] = []
        self._pulled: set[str] = set()

    def run(self) -> Figures:
        """Let them fight, bring all home, and look."""
        try:
            while time.time() < self._until:
                self._reap()
                for _ in range(self._job.processes - len(self._children)):
                    self._bear()
                self._play()
                time.sleep(0.02)
            self._end()
        finally:
            for pid in self._children:
                os.kill(pid, signal.SIGKILL)
        self._settle()
        return self._log.figures()

    def _bear(self) -> None:
        """One more process; every third one lets workers write."""
        self._born += 1
        name = f"own{self._born}"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._live(f"{self._job.seed} {name}", worker=self._born % 3 == 0)
        self._children.append(pid)

    def _live(self, name: str, *, worker: bool) -> NoReturn:
        """A process: some threads on the same connections; it may die at any moment of its calls."""
        try:
            with open(f"{self._root}/../stacks-{os.getpid()}", "w") as stacks:
                os.dup2(stacks.fileno(), sys.stderr.fileno())
                faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
                conns = [connect(self._root, uri, worker=worker) for uri in URIS]
                dice = random.Random(name)
                for conn in conns:
                    conn.host.watch(lambda _: self._perhaps_die(dice))
                callers = [
                    Caller(conns, self._host, self._shelf, f"{name}-{number}", self._log)
                    for number in range(THREADS)
                ]
                threads = [threading.Thread(target=c.run, args=(self._until,)) for c in callers]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        except BaseException as error:
            self._log.loss(f"{name} ended: {error!r}")
        finally:
            os._exit(0)

    def _perhaps_die(self, dice: random.Random) -> None:
        if dice.random() < 0.008:
            self._log.note_death()
            os.kill(os.getpid(), signal.SIGKILL)

    # What happens from outside.

    def _play(self) -> None:
        """Kill somebody, pull out or plug in a card, or look around."""
        act = self._random.choice(("kill", "plug", "look", "look", "nothing", "nothing"))
        if act == "kill" and self._children and self._random.random() < 0.3:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(self._children), signal.SIGKILL)
                self._log.note("kill", "")
        elif act == "plug":
            out = self._pulled and self._random.random() < 0.6
            self._plug(self._random.choice(sorted(self._pulled) if out else self._shelf.flapping))
        elif act == "look":
            for wrong in self._observer.look():
                self._log.loss(wrong)
            self._log.note("look around", "")

    def _plug(self, address: str) -> None:
        """Pull a card out, or plug another one in: that takes longer than a write to the old one."""
        if address not in self._pulled:
            self._host.unplug(address)
            self._pulled.add(address)
            return
        with self._host.ledger.transaction() as transaction:
            records = [r for r in transaction.records() if r.address == address and r.op]
            if not any(operations.is_alive(self._host.state_dir, r.op or "") for r in records):
                plug(self._host, address)
                self._pulled.remove(address)
                self._log.note("plug", "")

    def _reap(self) -> None:
        """Bury whoever has ended, workers of dead processes too."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._children:
                self._children.remove(pid)

    # The end.

    def _end(self) -> None:
        """Wait until all have ended, workers too; who does not is deadlocked."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self._reap()
            if not self._children and not self._working():
                return
            time.sleep(0.02)
        for pid in self._children:
            os.kill(pid, signal.SIGUSR1)
        time.sleep(1.0)
        for pid in self._children:
            with open(f"{self._root}/../stacks-{pid}") as file:
                self._log.loss(f"process {pid} does not end: {file.read()}")
        for doing in self._working():
            self._log.loss(f"does not end: {doing}")

    def _working(self) -> list[str]:
        state_dir = self._host.state_dir
        return [
            operations.describe(state_dir, name)
            for name in operations.list_ids(state_dir)
            if operations.is_alive(state_dir, name)
        ]

    def _settle(self) -> None:
        """One recovery, then everybody gives back what is his: the machine is as it was found."""
        for address in sorted(self._pulled):
            plug(self._host, address)
        conns = {uri.partition(":")[0]: connect(self._root, uri) for uri in URIS}
        self._try(conns["qemu"].recover)
        for record in self._host.ledger.records():
            if record.op or record.stuck or not (record.handed or self._is_needed(record)):
                self._log.loss(f"recover left {record}")
        for owner in {r.owner for r in self._host.ledger.records() if r.owner is not None}:
            self._try(partial(conns[owner.driver].reattach_hostdevs, owner.domain))
        for record in self._host.ledger.records():
            if record.phase is Phase.INACTIVE:
                self._try(partial(conns["qemu"].reattach_device, record.address))
        self._compare()

    def _is_needed(self, record: Record) -> bool:
        return any(r.group == record.group and r.handed for r in self._host.ledger.records())

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except HostdevError as error:
            self._log.loss(f"at the end: {error!r}")

    def _compare(self) -> None:
        for record in self._host.ledger.records():
            self._log.loss(f"at the end there is {record}")
        for name in operations.list_ids(self._host.state_dir):
            self._log.loss(f"at the end there is operation {name}")
        now, found = self._host.snapshot(), self._observer.found
        for name in sorted({*now, *found}):
            if now.get(name) != found.get(name):
                self._log.loss(f"{name} is {now.get(name)}, was found as {found.get(name)}")


def main(words: list[str]) -> None:
    """The process of a job; prints its figures."""
    job = Job(*json.loads(words[0]))
    if job.without:
        setattr(*MUTATIONS[job.without]())
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        figures = Nursery(job, folder).run()
    sys.stdout.write(f"{json.dumps(figures)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
