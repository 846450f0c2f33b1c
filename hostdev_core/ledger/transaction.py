"""Transactions: records are read and changed as SQLite's rows, each by compare-and-set."""

import sqlite3

from hostdev_core.errors import StateError
from hostdev_core.ledger.validation import IsName, check_row
from hostdev_core.model.record import COLUMNS, Record

KEPT = "The file was left as it is; move it away, then compare `hostdev list` with what your domains use"
_PLACES = ", ".join("?" * len(COLUMNS))
_SELECT = (
    f"SELECT {', '.join(COLUMNS)} FROM records"
    " WHERE :group IS NULL OR iommu_group = :group ORDER BY kind, address"
)
_INSERT = f"INSERT OR ABORT INTO records VALUES ({_PLACES})"
_UPDATE = (
    f"UPDATE records SET {', '.join(f'{name} = ?' for name in COLUMNS)}"
    " WHERE kind = ? AND address = ? AND phase = ? AND op IS ?"
)
_DELETE = "DELETE FROM records WHERE kind = ? AND address = ? AND phase = ? AND op IS ?"


class Transaction:
    """Reads and changes records while the ledger is locked: for short, and never while the kernel works."""

    def __init__(self, connection: sqlite3.Connection, path: str, is_name: IsName) -> None:
        self._connection = connection
        self._path = path
        self._is_name = is_name

    def records(self, *, group: int | None = None) -> list[Record]:
        """All records, or those of an IOMMU group, by kind and address.

        Raises StateError for a row that is none of ours.
        """
        try:
            rows = self._connection.execute(_SELECT, {"group": group})
            return [check_row(Record.from_row(row), self._is_name) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(
                f"{self._path} holds a row that is not hostdev's: {error!s:.200}. {KEPT}"
            ) from error

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
