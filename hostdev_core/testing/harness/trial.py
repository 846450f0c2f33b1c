"""The trial of one scenario: its machines, the worlds that are right, and the losses.

A call is all or nothing: after a disturbance the world must be the one before the call or the one after it.
"""

import os
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from hostdev_core import Connection, HostdevError
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import ContractBase
from hostdev_core.testing.harness.injection import Watcher
from hostdev_core.testing.harness.scenarios import SCENARIOS, Scenario, make_machine
from hostdev_core.testing.harness.world import (
    World,
    devices,
    differences,
    is_stuck,
    part_of,
    world,
)

Action = Callable[[Connection], object]


class Trial:
    """Makes machines for one scenario, and keeps each loss: a promise that was not kept on one of them."""

    def __init__(self, contract: ContractBase, name: str, folder: Path) -> None:
        self.scenario: Scenario = SCENARIOS[name]
        self.losses: list[str] = []
        self._contract = contract
        self._name = name
        self._folder = folder
        self._numbers = count()
        host = self.fresh()
        self.before = world(host)
        if error := self.outcome(host, self.scenario.action):
            self.lose("undisturbed", repr(error))
        self.after = world(host)
        self.untouched = world(make_machine(contract.make_host(folder / "untouched")))
        if self.scenario.goes_home and (wrong := differences(self.untouched, self.after)):
            self.lose("undisturbed", wrong)

    def fresh(self) -> SimulatedHost:
        """Make a new machine, and bring it to the moment before the call."""
        host = make_machine(self._contract.make_host(self._folder / str(next(self._numbers))))
        self.call(host, self.scenario.before)
        return host

    def call(
        self, host: SimulatedHost, action: Action, watcher: Watcher | None = None, **options: Any
    ) -> None:
        """Make a call through a connection of its own, watched; `options` are open_connection's."""
        with self._contract.connect(host, **options) as conn:
            conn.host.watch(watcher)
            action(conn)

    def outcome(
        self, host: SimulatedHost, action: Action, watcher: Watcher | None = None, **options: Any
    ) -> HostdevError | None:
        """Make a call; return the HostdevError that it raised, if it did. Any other exception is a loss."""
        try:
            self.call(host, action, watcher, **options)
        except HostdevError as error:
            return error
        except Exception as error:
            self.lose("a foreign exception", repr(error))
        return None

    def recover(self, host: SimulatedHost, number: int = 1) -> None:
        """Recover in this many new processes at once."""

        def work() -> None:
            self.call(type(host).open(host.root), Connection.recover)

        for pid in [in_child(work) for _ in range(number)]:
            os.waitpid(pid, 0)

    def check(self, host: SimulatedHost, what: str, *wanted: World) -> None:
        """Record a loss unless the world is one of these: without `wanted`, that before or after the call."""
        now, wanted = world(host), wanted or (self.before, self.after)
        if now not in wanted:
            wrong = min((differences(each, now) for each in wanted), key=len)
            said = [f"{r.address}: {r.stuck}" for r in host.ledger.records() if r.stuck]
            self.lose(what, "; ".join((wrong, *said)))

    def check_told(self, host: SimulatedHost, what: str) -> None:
        """Record a loss unless the record of each device that is neither as before nor as after says why.

        So must one record at least where all are as before or as after, but not all the same.
        """
        now = world(host)
        if now in (self.before, self.after):
            return
        stuck = {name for name in devices(now) if is_stuck(now, name)}
        for name in devices(self.before, now):
            known = (part_of(self.before, name), part_of(self.after, name))
            if name not in stuck and part_of(now, name) not in known:
                self.lose(what, f"nobody says why {name} is {part_of(now, name)}, wanted {known}")
        if not stuck:
            self.lose(what, "nobody says why it is neither as before nor as after")

    def lose(self, what: str, wrong: str) -> None:
        """Record that the promise was not kept: in which trial, and how."""
        self.losses.append(f"{self._name}: {what}: {wrong}")


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked process that ends with it, silently; return its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _end_with(work)
    return pid


def _end_with(work: Callable[[], object]) -> NoReturn:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        work()
    finally:
        os._exit(0)


def answer_of(work: Callable[[int], object]) -> str:
    """Run `work` in a child; return what it, and all that it leaves behind, writes to its argument."""
    reader, writer = os.pipe()
    pid = in_child(lambda: work(writer))
    os.close(writer)
    said = b""
    while part := os.read(reader, 4096):  # ends when its worker has ended, too
        said += part
    os.close(reader)
    os.waitpid(pid, 0)
    return said.decode()
