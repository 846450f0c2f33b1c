"""The ledger of a simulated host: its disk fails on a test's request, and it is root's alone."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.host import Host
from hostdev_core.ledger.boot import Boot
from hostdev_core.ledger.store import Ledger
from hostdev_core.simulated.faults import Faults

# SQLite's messages for these errors of its file system.
_MESSAGES = {
    errno.ENOSPC: "database or disk is full",
    errno.EROFS: "attempt to write a readonly database",
}


class SimulatedLedger(Ledger):
    """The ledger of one simulated host; `user`: the uid of a user who is not root, None for root."""

    def __init__(self, host: Host, faults: Faults, *, user: int | None) -> None:
        super().__init__(
            host.state_dir,
            deadline=host.deadlines.ledger,
            boot=Boot(host.boot_id, host.boot_time, host.buses.is_bound),
            check=host.check_ledger if user is None else self._refuse,
            is_name=host.buses.is_name,
        )
        self._faults = faults

    @contextmanager
    def changing(self, what: str) -> Generator[None, None, None]:
        """Surround a transaction, which counts as a write to "ledger" for faults."""
        with super().changing(what):
            if (fault := self._faults.take({"ledger"}, what)) is not None:
                self._faults.wait(fault, "ledger", what)
                if fault.errno is not None:
                    message = _MESSAGES.get(fault.errno, "disk I/O error")
                    raise StateError(f"{self.path} cannot be used: {message}")
            yield

    def _refuse(self) -> None:
        """Refuse a user who is not root: the ledger's directory is root's, mode 0700."""
        if os.path.lexists(self.directory):
            denied = os.strerror(errno.EACCES)
            raise NotPermittedError(f"may not read {self.path}: {denied}; run as root")
