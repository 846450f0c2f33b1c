"""Transactions: records are read and changed as SQLite's rows, each by compare-and-set."""

import sqlite3
from collections.abc import Iterable, Sequence

from hostdev_core.errors import StateError
from hostdev_core.ledger.validation import IsName, check_row
from hostdev_core.model.near import Near
from hostdev_core.model.record import COLUMNS, Phase, Record

KEPT = "The file was left as it is; move it away, then compare `hostdev list` with what your domains use"
MOST_KNOWN = 128
_PLACES = ", ".join("?" * len(COLUMNS))
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM records"
_ORDER = " ORDER BY kind, address"
_INSERT = f"INSERT OR ABORT INTO records VALUES ({_PLACES})"
_UPDATE = (
    f"UPDATE records SET {', '.join(f'{name} = ?' for name in COLUMNS)}"
    " WHERE kind = ? AND address = ? AND phase = ? AND op IS ?"
)
_DELETE = "DELETE FROM records WHERE kind = ? AND address = ? AND phase = ? AND op IS ?"
_TAKE = (
    "UPDATE records SET phase = ?, op = ?, stuck = NULL"
    " WHERE kind = ? AND address = ? AND phase = ? AND op IS ?"
)
_CONFIRM = "UPDATE records SET confirmed = 1 WHERE op = ? AND phase = ? AND confirmed = 0"
_SETTLE = (
    "UPDATE records SET phase = ?, op = NULL, since = ?"
    " WHERE op = ? AND phase = ? AND confirmed = 1"
)


class Transaction:
    """Reads and changes records while the ledger is locked: for short, and never while the kernel works.

    `known` are the records of rows that were read and checked before.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        is_name: IsName,
        known: dict[tuple[object, ...], Record],
    ) -> None:
        self._connection = connection
        self._path = path
        self._is_name = is_name
        self._known = known

    def records(self) -> list[Record]:
        """All records, by kind and address.

        Raises StateError for a row that is none of ours, as all that read; only what is asked for is read.
        """
        return self._select("", ())

    def of_group(self, group: int) -> list[Record]:
        """The records of an IOMMU group, by kind and address."""
        return self._select(" WHERE iommu_group = ?", (group,))

    def of_operation(self, operation: str) -> list[Record]:
        """The records that an operation works on, by kind and address."""
        return self._select(" WHERE op = ?", (operation,))

    def of_domain(self, name: str) -> list[Record]:
        """The records of the domains of this name, by kind and address.

        And those of no domain that are active all the same: such a row is damaged, and may be of this one.
        """
        where = " WHERE owner_domain = ? OR owner_domain IS NULL AND phase = 'active'"
        return self._select(where, (name,))

    def operations(self) -> set[str]:
        """The operations that records are with."""
        return {record.op for record in self._select(" WHERE op IS NOT NULL", ()) if record.op}

    def near(self, near: Near) -> dict[tuple[str, str], Record]:
        """The records that may be in the way of devices, by key; and all of these records' groups.

        By SQLite's indexes, each by itself: what others have costs nothing.
        """
        conditions, values = _near(near)
        near_rows = f"SELECT rowid FROM records WHERE {' OR '.join(conditions)}"
        groups = f"SELECT iommu_group FROM records WHERE rowid IN ({near_rows})"
        where = f" WHERE rowid IN ({near_rows}) OR iommu_group IN ({groups})"
        return {record.key: record for record in self._select(where, (*values, *values))}

    def _select(self, where: str, values: Sequence[object]) -> list[Record]:
        try:
            # All at once: a cursor that an exception's traceback keeps would keep the file locked.
            rows = self._connection.execute(f"{_SELECT}{where}{_ORDER}", values).fetchall()
            return [self._known.get(row) or self._read(row) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(
                f"{self._path} holds a row that is not hostdev's: {error!s:.200}. {KEPT}"
            ) from error

    def _read(self, row: tuple[object, ...]) -> Record:
        """Check a row that was not read before, and remember it: most rows are read several times."""
        record = check_row(Record.from_row(row), self._is_name)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[row] = record
        return record

    def delete_all(self) -> int:
        """Delete all records, whatever they hold; returns how many there were."""
        return self._connection.execute("DELETE FROM records").rowcount

    def write_boot(self, number: int) -> None:
        """Write the number of the boot whose records these are."""
        self._connection.execute(f"PRAGMA application_id = {number}")

    def index(self, statements: Iterable[str], version: int) -> None:
        """Make these indexes; the file is of that version of the schema from then on."""
        for statement in statements:
            self._connection.execute(statement)
        self._connection.execute(f"PRAGMA user_version = {version}")

    def commit(self) -> None:
        """Keep the changes: those of a transaction that ends without it are rolled back."""
        self._connection.execute("COMMIT")

    def insert(self, record: Record) -> None:
        """Add a record; StateError when the device has one."""
        try:
            self._connection.execute(_INSERT, self._row_of(record))
        except sqlite3.IntegrityError:
            raise StateError(f"{record.address} has a record already") from None

    def update(self, old: Record, new: Record) -> bool:
        """Replace a record, only while phase and operation are still those of `old`; tell whether it was."""
        row = (*self._row_of(new), old.kind, old.address, old.phase, old.op)
        done = self._connection.execute(_UPDATE, row)
        return done.rowcount == 1

    def confirm(self, operation: str) -> int:
        """Confirm all claims of an operation; returns how many there were."""
        return self._connection.execute(_CONFIRM, (operation, Phase.PREPARING)).rowcount

    def settle(self, operation: str, phase: Phase, since: float) -> int:
        """Take all claims of an operation to the phase that they were claimed for; returns how many."""
        row = (phase, since, operation, Phase.PREPARING)
        return self._connection.execute(_SETTLE, row).rowcount

    def take(self, old: Record, phase: Phase, operation: str) -> bool:
        """Claim a record for an operation in this phase, as `update`, and forget why it was stuck."""
        row = (phase, operation, old.kind, old.address, old.phase, old.op)
        return self._connection.execute(_TAKE, row).rowcount == 1

    def delete(self, old: Record) -> bool:
        """Delete a record, only while phase and operation are still those of `old`; tell whether it was."""
        return (
            self._connection.execute(_DELETE, (old.kind, old.address, old.phase, old.op)).rowcount
            == 1
        )

    def _row_of(self, record: Record) -> tuple[object, ...]:
        """Make a record's row; StateError for one that `check_row` refuses."""
        # Written all the same, it would be refused at each reading, and no process could use the ledger.
        try:
            return check_row(record, self._is_name).to_row()
        except ValueError as error:
            raise StateError(
                f"{record.address} cannot be recorded: {error!s:.200} is nothing that the ledger holds;"
                " it was left as it is"
            ) from error


def _near(near: Near) -> tuple[list[str], list[object]]:
    """The conditions of `Transaction.near` in SQL, and the values of their places."""
    names, addresses, groups = near.names, near.names | near.related, near.groups
    wanted = (
        ("address", addresses),
        ("physfn", names),
        ("controller", names),
        ("iommu_group", groups),
    )
    conditions = [f"{column} IN ({', '.join('?' * len(some))})" for column, some in wanted if some]
    return conditions or ["0"], [value for _, some in wanted for value in some]
