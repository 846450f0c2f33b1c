"""Whether the records of a ledger that outlives a reboot are of the boot that runs now.

The boot id alone does not tell: a container may have one of its own (some runtimes mount a file over
random(4)'s boot_id), and shares the machine's ledger all the same.
"""

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hostdev_core.model.record import Record
from hostdev_core.runtime.operation import is_alive


def _nothing(record: Record) -> bool:
    del record
    return False


class Boot(NamedTuple):
    """The boot that runs, as this process sees it.

    `id` are random hex digits, None where they are not known. `began` is the time of day of its
    begin, seconds since the epoch; where that is None the id alone decides. `is_bound` tells whether a
    record's device is where the record put it, or cannot be seen.
    """

    id: str | None = None
    began: float | None = None
    is_bound: Callable[[Record], bool] = _nothing

    @property
    def number(self) -> int:
        """The first 28 bits of its id, which a ledger keeps; 0 where it is not known."""
        try:
            return int((self.id or "0")[:7], 16)  # application_id is a signed number of 32 bits
        except ValueError:
            return 0

    def is_another(self, number: int) -> bool:
        """Whether a ledger with this number was written by a process that saw another boot id."""
        return 0 not in {number, self.number} and number != self.number

    def ended(self, path: str, records: Iterable[Record]) -> bool:
        """Whether the boot in which the file `path` was written is over, as far as all else tells.

        So it is when the file was not changed since this boot began, no operation of a record is alive,
        and no device is where its record says.
        """
        known = [*records]
        directory = os.path.dirname(path)
        if any(record.op is not None and is_alive(directory, record.op) for record in known):
            return False
        if self.began is None:
            return True
        return os.stat(path).st_mtime < self.began and not any(map(self.is_bound, known))
