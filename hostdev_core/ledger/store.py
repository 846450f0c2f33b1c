"""The ledger: which device is whose, in SQLite, shared by all processes of a host.

Each transaction has a connection of its own: none is ever shared by threads or carried over a fork,
and nothing but sqlite3 opens the file (closing a plain descriptor would drop SQLite's locks). The
file lives as long as the bindings do (/run is gone after a reboot), so it is never synced to disk.
One that outlives a reboot has its boot's number: bindings are gone then, and its records are void.
"""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import NamedTuple, TypeVar

from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.kernel.watched import Watched
from hostdev_core.ledger.boot import Boot
from hostdev_core.ledger.fair_lock import LockError, LockStalledError, fair_lock, lock_holders
from hostdev_core.ledger.transaction import KEPT, Transaction
from hostdev_core.ledger.validation import IsName, is_device_name
from hostdev_core.model.record import COLUMNS, Record
from hostdev_core.runtime import forks
from hostdev_core.runtime.operation import is_alive
from hostdev_core.runtime.signals import signals_deferred
from hostdev_core.runtime.trusted_files import check_directory, check_ledger

SCHEMA_VERSION = 1
INDEXED_VERSION = 2  # the same table, with indexes
LARGEST = 64 << 20  # bytes; a record takes less than a thousand
_CREATE = f"CREATE TABLE records ({', '.join(COLUMNS)}, PRIMARY KEY (kind, address))"
# For each question that `Transaction` asks: without them, each costs a look at all records.
_INDEXES = tuple(
    f"CREATE INDEX by_{column} ON records ({column})"
    for column in ("address", "iommu_group", "physfn", "controller", "op", "owner_domain")
)
_SMALL = 16  # pages of 4 KiB: a look at so few costs less than indexes do
_FORMS = {SCHEMA_VERSION: _CREATE, INDEXED_VERSION: ";".join((_CREATE, *_INDEXES))}
_FORM = (
    "SELECT user_version, application_id, page_count,"
    " (SELECT group_concat(sql, ';') FROM sqlite_schema WHERE sql IS NOT NULL)"
    " FROM pragma_user_version, pragma_application_id, pragma_page_count"
)
_SPECIAL = re.compile("[%?#]")  # in an URI


T = TypeVar("T")


class _File(NamedTuple):
    """The version of a ledger's schema, the number of the boot that wrote it, its size in pages."""

    version: int
    boot: int
    pages: int


class Ledger(Watched):
    """The ledger of `directory`, made at the first change; `deadline` is for its lock, seconds.

    The file has the number of the `boot` it was made in as its application_id, 0 where that was not
    known. `check` is called before the file is looked at, and raises what keeps it from being used;
    once it has answered True it is not called again.
    """

    def __init__(self, directory: str, *, deadline: float = 20.0, boot: Boot | None = None,
                 check: Callable[[], bool | None] = lambda: True,
                 is_name: IsName = is_device_name) -> None:  # fmt: skip
        self.directory = directory
        self._check = check
        self._is_checked = False
        self._is_name = is_name
        self._boot = boot or Boot()
        self.path = os.path.join(directory, "state.db")
        # Earlier versions, which may run beside this one, lock the file by this name.
        self._lock_path = os.path.join(directory, "turn")
        self._deadline = deadline
        self._uri = f"file:{_escaped(self.path)}?mode=rw"
        self._known: dict[tuple[object, ...], Record] = {}

    def records(self) -> list[Record]:
        """All records; none where there is no ledger, or one of an earlier boot.

        Raises NotPermittedError without the right to read it, StateError when it is damaged.
        """
        return self.read(Transaction.records) or []

    def read(self, ask: Callable[[Transaction], T]) -> T | None:
        """What `ask` answers of the records; None where there are none. Raises as `records`."""
        if not self._is_there():
            return None
        try:
            with signals_deferred(), self._opened("BEGIN") as (reader, file):
                return None if self._is_void(reader, file.boot) else ask(reader)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    @contextmanager
    def transaction(self) -> Generator[Transaction]:
        """Lock the ledger and commit at the end of the block; an exception in it rolls everything back.

        Signal handlers are deferred to the end, but called while this waits for the lock.

        Raises NotPermittedError, or StateError naming the process that keeps the ledger locked.
        """
        self.create()
        try:
            with (
                self.changing("transaction"),
                signals_deferred() as deliver_signals,
                self._locked(deliver_signals) as report_progress,
                self._opened("BEGIN IMMEDIATE") as (transaction, file),
            ):
                report_progress()  # SQLite's own lock was free: whoever waits for ours may wait on
                self._forget_earlier_boot(transaction, file.boot)
                if file.pages > _SMALL and file.version == SCHEMA_VERSION:
                    self._index(transaction)
                yield transaction
                self.tell("in transaction")
                transaction.commit()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _is_void(self, transaction: Transaction, boot: int) -> bool:
        """Whether an earlier boot wrote the records: nothing is bound as they say any more."""
        return self._boot.is_another(boot) and self._boot.ended(self.path, transaction.records())

    def _forget_earlier_boot(self, transaction: Transaction, boot: int) -> None:
        """Delete void records, and write this boot's number into the file; live ones keep theirs."""
        if self._boot.number in {0, boot}:
            return
        if boot:
            if not self._is_void(transaction, boot):
                return
            import logging  # here: a reader of the ledger should not pay for it

            gone = transaction.delete_all()
            log = logging.getLogger("hostdev")
            log.warning("%s is of an earlier boot; its %d records are void", self.path, gone)
        transaction.write_boot(self._boot.number)

    def _index(self, transaction: Transaction) -> None:
        """Make the indexes, unless an operation is alive: its process may know nothing of them."""
        if not any(is_alive(self.directory, operation) for operation in transaction.operations()):
            transaction.index(_INDEXES, INDEXED_VERSION)

    @contextmanager
    def _locked(self, meanwhile: Callable[[], None]) -> Generator[Callable[[], None]]:
        """Keep other transactions out, in this process and others; `meanwhile` and yields as `fair_lock`."""
        path = self._lock_path
        with forks.ledger_lock, ExitStack() as stack:
            try:
                report_progress = stack.enter_context(fair_lock(path, self._deadline, meanwhile))
            except LockStalledError:
                raise self._stays_locked() from None
            except LockError as error:
                raise StateError(f"{path} cannot be used: {error}") from error
            yield report_progress

    def create(self) -> None:
        """Make directory (mode 0700) and file where they are missing."""
        if self._is_there(closing=True):
            return
        try:
            # Who may open a file can lock it, and keep everybody waiting.
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        except PermissionError as error:
            raise NotPermittedError(
                f"cannot make {self.directory}: {error.strerror}; run as root"
            ) from error
        except OSError as error:
            raise StateError(f"cannot make {self.directory}: {error.strerror}") from error
        check_directory(self.directory, closing=True)
        with signals_deferred() as deliver_signals, self._locked(deliver_signals):
            if not self._is_there():  # another process may have made it meanwhile
                self._make()

    def _make(self) -> None:
        """Make the file, whole or not at all; the ledger is locked."""
        fresh = f"{self.path}.new"
        try:
            with suppress(FileNotFoundError):
                os.unlink(fresh)  # of one that was killed
            with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute(_CREATE)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self.tell("in creation")
            os.rename(fresh, self.path)  # a process that is killed before leaves no half of it
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"cannot make {self.path}: {error}") from error

    def _is_there(self, *, closing: bool = False) -> bool:
        if not self._is_checked:
            self._is_checked = bool(self._check())
        try:
            check_ledger(self.directory, self.path, LARGEST, closing=closing)
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise NotPermittedError(
                f"may not read {self.path}: {error.strerror}; run as root"
            ) from error
        except OSError as error:
            raise StateError(f"cannot look at {self.path}: {error.strerror}") from error
        return True

    @contextmanager
    def _opened(self, begin: str) -> Generator[tuple[Transaction, "_File"]]:
        """Open the file and `begin`; yield a transaction, and what the file is.

        What is not committed in the block is rolled back.
        """
        with forks.ledger_lock:
            connection = sqlite3.connect(
                self._uri, uri=True, isolation_level=None, timeout=self._deadline
            )
            try:
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(begin)
                file = self._check_schema(connection)
                yield Transaction(connection, self.path, self._is_name, self._known), file
            finally:
                if connection.in_transaction:  # not committed; a close alone may wait for a cursor
                    connection.rollback()
                connection.close()

    def _check_schema(self, connection: sqlite3.Connection) -> "_File":
        """Raise StateError unless the file holds hostdev's table and nothing else, of a known version."""
        version, boot, pages, form = connection.execute(_FORM).fetchone()
        if version not in {0, *_FORMS}:  # 0 is nobody's: no hostdev ever wrote it
            raise StateError(
                f"{self.path} has schema version {version}, this hostdev knows {INDEXED_VERSION};"
                " use the hostdev that wrote it. The file was left as it is"
            )
        # A trigger or a view would be SQL of another program's, which runs with our statements.
        if version == 0 or form != _FORMS[version]:
            raise StateError(f"{self.path} holds something else than hostdev's table. {KEPT}")
        return _File(version, boot, pages)

    def _explain(self, error: sqlite3.Error) -> Exception:
        text = str(error)
        if "locked" in text or "busy" in text:
            return self._stays_locked()
        if isinstance(error, sqlite3.OperationalError):
            if "unable to open" in text and not os.access(self.path, os.R_OK | os.W_OK):
                return NotPermittedError(f"may not open {self.path}; run as root")
            return StateError(f"{self.path} cannot be used: {text}")
        return StateError(f"{self.path} is damaged: {text}. {KEPT}")

    def _stays_locked(self) -> StateError:
        return StateError(
            f"{self.path} stayed locked for {self._deadline:g} s by"
            f" {lock_holders(self.path, self._lock_path)}"
        )


def _escaped(path: str) -> str:
    return _SPECIAL.sub(lambda match: f"%{ord(match[0]):02x}", path)


def now() -> float:
    """The time of day for a record's `since`, seconds since the epoch."""
    return time.time()
