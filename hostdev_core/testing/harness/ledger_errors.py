"""Disturbances: the ledger cannot be used from the nth transaction of a call on, until it is mended."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from hostdev_core.host import Deadlines
from hostdev_core.ledger.fair_lock import turn
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.arena import Arena, in_child

SHORT = Deadlines(ledger=0.05)
PATIENCE = 60.0  # seconds, for those who are in the middle
NEWER = 1_000


class Trouble:
    """What befalls a ledger: `strike` before every transaction from the nth on, `mend` at the end."""

    def __init__(self, host: SimulatedHost) -> None:
        self._path = Path(host.ledger.path)

    def strike(self, first: bool) -> None:
        """Bring it about; an sqlite3.Error is raised as SQLite's answer."""

    def mend(self) -> None:
        """Take it away."""

    def connected(self) -> closing[sqlite3.Connection]:
        """SQLite's own door to the file, past hostdev's turns."""
        return closing(sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE))


class Full(Trouble):
    """The disk is full."""

    def strike(self, first: bool) -> None:
        raise sqlite3.OperationalError("database or disk is full")


class FullOnce(Trouble):
    """The disk is full for a moment."""

    def strike(self, first: bool) -> None:
        if first:
            raise sqlite3.OperationalError("database or disk is full")


class ReadOnly(Trouble):
    """The file system is read-only."""

    def strike(self, first: bool) -> None:
        raise sqlite3.OperationalError("attempt to write a readonly database")


class Damaged(Trouble):
    """The file holds something else; mended from a copy."""

    _copy = b""

    def strike(self, first: bool) -> None:
        if first:
            with turn(str(self._path.with_name("turn")), PATIENCE):  # others are in the middle
                self._copy = self._path.read_bytes()
                self._path.write_bytes(b"this is no database " * 300)

    def mend(self) -> None:
        self._path.write_bytes(self._copy)


class Newer(Trouble):
    """Another hostdev has made it its own."""

    _version = 0

    def strike(self, first: bool) -> None:
        if first:
            self._version = self._swap(NEWER)

    def mend(self) -> None:
        self._swap(self._version)

    def _swap(self, new: int) -> int:
        with self.connected() as connection:
            old = int(connection.execute("PRAGMA user_version").fetchone()[0])
            connection.execute(f"PRAGMA user_version = {new}")
        return old


class Locked(Trouble):
    """A process that was stopped in the middle of a transaction keeps the lock."""

    _pid = 0

    def strike(self, first: bool) -> None:
        if first:
            self._pid = in_child(self._lock_and_stop)
            os.waitpid(self._pid, os.WUNTRACED)

    def _lock_and_stop(self) -> None:
        with self.connected() as connection:
            connection.execute("BEGIN EXCLUSIVE")
            os.kill(os.getpid(), signal.SIGSTOP)

    def mend(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def ledger(trouble: Callable[[SimulatedHost], Trouble]) -> Callable[[Arena, int], int]:
    """The ledger fails before the nth transaction of the call."""

    def meet(arena: Arena, moment: int) -> int:
        host = arena.fresh()
        numbers, failed, what = count(1), False, trouble(host)

        def watcher(told: str) -> None:
            nonlocal failed
            if told == "before transaction" and (number := next(numbers)) >= moment:
                failed = True
                what.strike(number == moment)

        again = SimulatedHost.open(host.root)
        error = arena.outcome(again, arena.scenario.action, watcher, deadlines=SHORT)
        if not failed:
            return 0
        what.mend()
        name = f"ledger {type(what).__name__} at transaction {moment}"
        if error is None:
            arena.check(host, f"{name}, without a word", arena.after)
        arena.recover(host)
        arena.check(host, name)
        return 1

    return meet
