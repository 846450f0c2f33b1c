"""Kills by enumeration: what the tests of them call in the guest, see world.call.

An undisturbed call says which moments it has; then it is made once for each and killed there. The
moments are Host.watch's, so no list is kept by hand. After each death the world must be the one
before the call or the one after it, once a new process has recovered.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import attrs

from hostdev_core import Connection, Domain, Host, PrepareFlags, Registry, open_connection
from hostdev_core.runtime import operation as operations

from .inside import QEMU
from .inside_processes import die, in_child
from .inside_world import differences, world

NAME = "killed"
MOST_RECOVERERS = 100
World = dict[str, str]
Action = Callable[[Connection], object]


class Report(NamedTuple):
    """At which moments processes were killed, how many recoverers were, and what was lost."""

    moments: list[str]
    recoverers: int
    losses: list[str]


def check_nothing_lost(report: Report, writes: int) -> None:
    """For the tests: every write to the kernel was met, and every device is where it must be."""
    assert report.losses == []
    met = Counter(moment.split()[0] for moment in report.moments if " write bus/" in moment)
    assert met == {"before": writes, "after": writes}, report.moments


class Watcher:
    """Names each moment, with its number when it is not the first of its kind; kills at one of them.

    `victim` is the process that dies, None for the one that is there.
    """

    def __init__(self, chosen: Callable[[int, str], bool], victim: int | None = None) -> None:
        self.seen: list[str] = []
        self._chosen = chosen
        self._victim = victim
        self._counts = Counter[str]()
        self._lock = threading.Lock()

    def __call__(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1
            times = self._counts[what]
            self.seen.append(what if times == 1 else f"{what} ({times})")
            if self._chosen(len(self.seen), self.seen[-1]):
                die(self._victim)


def kill_everywhere(
    verb: str,
    devices: Sequence[str],
    *,
    uri: str = QEMU,
    flags: PrepareFlags = PrepareFlags.NONE,
    only: str = "",
    side: str = "process",
    again: bool = False,
) -> Report:
    """Kill a call, `verb` is prepare or reattach, at each of its moments.

    The devices are as found before and afterwards. `only` chooses the moments that contain it.
    `side` is who dies: the process that calls and writes, or the "worker" or the "front" of two.
    `again`: each recoverer is killed as well, a moment later than the last one, until one comes
    through; then two recover at once.
    """
    return _Killer(verb, devices, uri, flags, only, side, again).run()


@attrs.define(eq=False)
class _Killer:
    """Carries out kill_everywhere."""

    _verb: str
    _devices: Sequence[str]
    _uri: str
    _flags: PrepareFlags
    _only: str
    _side: str
    _again: bool
    _host: Host = attrs.field(factory=Host)
    _registry: Registry = attrs.field(factory=Registry.from_entry_points)
    _losses: list[str] = attrs.field(factory=list[str])
    _recoverers: int = 0
    _home: World = attrs.field(factory=world)
    _before: World = attrs.field(factory=dict[str, str])
    _after: World = attrs.field(factory=dict[str, str])
    _now: World = attrs.field(factory=dict[str, str])

    def run(self) -> Report:
        """Kill, recover and look, for each moment."""
        moments = [moment for moment in self._enumerate() if self._only in moment]
        for moment in moments:
            self._begin()
            self._meet(moment)
        self._open_and(self._give_back)
        if world() != self._home:
            self._losses.append(f"at the end: {differences(self._home, world())}")
        return Report(moments, self._recoverers, self._losses)

    def _enumerate(self) -> Sequence[str]:
        """Make the call once, undisturbed."""
        if self._verb == "reattach":
            self._open_and(self._lend)
        self._before = world()
        watcher = Watcher(lambda number, name: False)
        self._open_and(self._act, watcher)
        self._now = self._after = world()
        return watcher.seen

    def _begin(self) -> None:
        """Bring about the world before the call."""
        if self._now != self._before:
            self._open_and(self._give_back if self._verb == "prepare" else self._lend)

    def _act(self, conn: Connection) -> None:
        if self._verb == "prepare":
            self._lend(conn)
        else:
            self._give_back(conn)

    def _lend(self, conn: Connection) -> None:
        conn.prepare_hostdevs(Domain(NAME, self._devices), self._flags)

    def _give_back(self, conn: Connection) -> None:
        conn.reattach_hostdevs(NAME)

    def _open_and(
        self, action: Action, watcher: Watcher | None = None, *, worker: bool = False
    ) -> None:
        self._host.watch(watcher)
        with open_connection(
            self._uri, host=self._host, registry=self._registry, worker=worker
        ) as conn:
            action(conn)

    def _meet(self, moment: str) -> None:
        what = f"{self._verb}, {self._side} killed {moment}"
        if not self._die(self._act, lambda _, name: name == moment, self._side):
            self._losses.append(f"{what}: never came there")
        left = world()
        self._losses += [f"{what}: {lost}" for lost in self._unrecorded(left)]
        if self._again:
            self._kill_recoverers()
        self._recover(2 if self._again else 1)
        self._now = world()
        if self._now not in (self._before, self._after):
            ways = (differences(each, self._now) for each in (self._before, self._after))
            found = min(ways, key=len)
            self._losses.append(f"{what}: {found}")

    def _unrecorded(self, left: World) -> list[str]:
        """The devices that are not as found, and of which the ledger does not know."""
        names = {
            name for name in self._home.keys() | left if left.get(name) != self._home.get(name)
        }
        changed = {word for name in names for word in name.split() if ":" in word}
        return [
            f"{address} is not as found and has no record"
            for address in sorted(changed)
            if f"record pci {address}" not in left
        ]

    def _kill_recoverers(self) -> None:
        for second in range(1, MOST_RECOVERERS):
            if not self._die(Connection.recover, lambda number, _, at=second: number == at):  # type: ignore[misc]
                return
            self._recoverers += 1
        self._losses.append("no recovery ever came through")

    def _die(
        self, action: Action, chosen: Callable[[int, str], bool], side: str = "process"
    ) -> bool:
        """Let a process make a call and die on its way; whether it did."""
        reader, writer = os.pipe()

        def live() -> None:
            os.close(reader)
            victim = os.getpid() if side == "front" else None

            def choose(number: int, name: str) -> bool:
                found = chosen(number, name)
                if found:
                    os.write(writer, b"!")
                return found

            self._open_and(action, Watcher(choose, victim), worker=side != "process")

        pid = in_child(live)
        os.close(writer)
        died = os.read(reader, 1) == b"!"
        while os.read(reader, 1):
            pass  # ends when the worker has, too
        os.close(reader)
        os.waitpid(pid, 0)
        _wait_for_locks()
        return died

    def _recover(self, processes: int) -> None:
        """This many new processes recover at once."""
        pids = [in_child(lambda: self._open_and(Connection.recover)) for _ in range(processes)]
        for pid in pids:
            os.waitpid(pid, 0)


def _wait_for_locks() -> None:
    """A killed process lets go of its pipe a moment before its locks."""
    end = time.monotonic() + 60.0
    state_dir = Host().state_dir
    while time.monotonic() < end and any(
        operations.is_alive(state_dir, name) for name in operations.list_ids(state_dir)
    ):
        time.sleep(0.01)
