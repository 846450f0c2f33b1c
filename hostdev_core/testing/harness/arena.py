"""Where a call is disturbed: each time on a new machine, and its world must be the one before the
call or the one after it, for a call is all or nothing.
"""

import os
import sys
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from hostdev_core import Connection, HostdevError
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import ContractBase
from hostdev_core.testing.harness.scenarios import SCENARIOS, Scenario, make_machine

World = dict[str, Any]
Watcher = Callable[[str], None]
Action = Callable[[Connection], object]


class Arena:
    """The machines of one scenario, and every time that the promise was not kept on one of them."""

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
        """A new machine on which has happened what is before the call."""
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
        """What a call raised, if it did; anything but a HostdevError is a loss."""
        try:
            self.call(host, action, watcher, **options)
        except HostdevError as error:
            return error
        except Exception as error:
            self.lose("a foreign exception", repr(error))
        return None

    def recover(self, host: SimulatedHost, number: int = 1) -> None:
        """This many new processes recover at once."""

        def work() -> None:
            self.call(SimulatedHost.open(host.root), Connection.recover)

        for pid in [in_child(work) for _ in range(number)]:
            os.waitpid(pid, 0)

    def check(self, host: SimulatedHost, what: str, *wanted: World) -> None:
        """The world must be one of these; those before and after the call unless others are named."""
        now, wanted = world(host), wanted or (self.before, self.after)
        if now not in wanted:
            wrong = min((differences(each, now) for each in wanted), key=len)
            said = [f"{r.address}: {r.stuck}" for r in host.ledger.records() if r.stuck]
            self.lose(what, "; ".join((wrong, *said)))

    def check_told(self, host: SimulatedHost, what: str) -> None:
        """Each device that is neither as before nor as after has a record that says why.

        So has one at least where all are as before or as after, but not all the same.
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
        """The promise was not kept."""
        self.losses.append(f"{self._name}: {what}: {wrong}")


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked process that ends with it, silently; its pid."""
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
    """What a child, and all that it leaves behind, writes to the descriptor that it is given."""
    reader, writer = os.pipe()
    pid = in_child(lambda: work(writer))
    os.close(writer)
    said = b""
    while part := os.read(reader, 4096):  # ends when its worker has, too
        said += part
    os.close(reader)
    os.waitpid(pid, 0)
    return said.decode()


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


def devices(*worlds: World) -> list[str]:
    """The names of the devices of these worlds, also of those that only have a record."""
    names = (name.split(" ")[-1] for each in worlds for name in each if "operation" not in name)
    return sorted({*names} - {"pciback", "xenstore"})


def part_of(world: World, name: str) -> World:
    """What a world tells of one device: the kernel's side, its slot, its keys, its record."""
    key = name.replace(":", "-").replace(".", "-")
    return {
        "kernel": world.get(name),
        "slot": name in world["pciback"]["slots"],
        "keys": {path: value for path, value in world["xenstore"].items() if key in path},
        "records": [world.get(f"record {kind} {name}") for kind in ("pci", "usb")],
    }


def is_stuck(world: World, name: str) -> bool:
    """Whether the record of a device says why it is not where it should be."""
    records = part_of(world, name)["records"]
    return any(record is not None and record["stuck"] for record in records)


def differences(wanted: World, now: World) -> str:
    """What is not as wanted, for a person."""
    names: Iterable[str] = sorted(
        name for name in {*wanted, *now} if wanted.get(name) != now.get(name)
    )
    return "; ".join(f"{name}: {now.get(name)}, wanted {wanted.get(name)}" for name in names)
