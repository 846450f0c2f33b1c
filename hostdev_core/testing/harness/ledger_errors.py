"""Disturbances: the ledger cannot be used from the nth transaction of a call on, until it is mended."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from hostdev_core.ledger.fair_lock import fair_lock
from hostdev_core.runtime.deadlines import Deadlines
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.injection import FromThenOn, Injector
from hostdev_core.testing.harness.trial import Trial, in_child

SHORT = Deadlines(ledger=0.05)
PATIENCE = 60.0  # seconds, for those who are in the middle
NEWER = 1_000


class LedgerFault:
    """A ledger that cannot be used: `happen` before every transaction from the nth on, `mend` at the end."""

    def __init__(self, host: SimulatedHost) -> None:
        self._path = Path(host.ledger.path)

    def happen(self, first: bool) -> None:
        """Bring it about; raise an sqlite3.Error as SQLite's answer."""

    def mend(self) -> None:
        """Let the ledger be usable again."""

    def connected(self) -> closing[sqlite3.Connection]:
        """Open the file with SQLite alone, without hostdev's fair lock."""
        return closing(sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE))


class Full(LedgerFault):
    """The disk is full."""

    def happen(self, first: bool) -> None:
        raise sqlite3.OperationalError("database or disk is full")


class FullOnce(LedgerFault):
    """The disk is full for a moment."""

    def happen(self, first: bool) -> None:
        if first:
            raise sqlite3.OperationalError("database or disk is full")


class ReadOnly(LedgerFault):
    """The file system is read-only."""

    def happen(self, first: bool) -> None:
        raise sqlite3.OperationalError("attempt to write a readonly database")


class Damaged(LedgerFault):
    """The file holds something else; mended from a copy."""

    _copy = b""

    def happen(self, first: bool) -> None:
        if first:
            with fair_lock(str(self._path.with_name("turn")), PATIENCE):  # others are in the middle
                self._copy = self._path.read_bytes()
                self._path.write_bytes(b"this is no database " * 300)

    def mend(self) -> None:
        self._path.write_bytes(self._copy)


class Newer(LedgerFault):
    """Another hostdev has made it its own."""

    _version = 0

    def happen(self, first: bool) -> None:
        if first:
            self._version = self._swap(NEWER)

    def mend(self) -> None:
        self._swap(self._version)

    def _swap(self, new: int) -> int:
        with self.connected() as connection:
            old = int(connection.execute("PRAGMA user_version").fetchone()[0])
            connection.execute(f"PRAGMA user_version = {new}")
        return old


class Locked(LedgerFault):
    """A process that was stopped in the middle of a transaction keeps the lock."""

    _pid = 0

    def happen(self, first: bool) -> None:
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


def fail(kind: Callable[[SimulatedHost], LedgerFault]) -> Callable[[Trial, int], int]:
    """Let the ledger fail from the nth transaction of the call on."""

    def disturb(trial: Trial, moment: int) -> int:
        host = trial.fresh()
        fault, times = kind(host), count(1)
        injector = Injector(
            lambda what: fault.happen(next(times) == 1), FromThenOn(moment), "before transaction"
        )
        again = type(host).open(host.root)
        error = trial.outcome(again, trial.scenario.action, injector, deadlines=SHORT)
        if not injector.met:
            return 0
        fault.mend()
        name = f"ledger {type(fault).__name__} at transaction {moment}"
        if error is None:
            trial.check(host, f"{name}, without a word", trial.after)
        trial.recover(host)
        trial.check(host, name)
        return 1

    return disturb
