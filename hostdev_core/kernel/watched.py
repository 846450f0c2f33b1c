"""The base of all that changes the machine or the ledger: a harness may watch each change."""

from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Watched:
    """Reports its changes to a `watcher`, where Host.watch has set one."""

    watcher: "Callable[[str], None] | None" = None

    def tell(self, moment: str) -> None:
        """Call the watcher, which may kill this process or make something fail, with this moment."""
        if self.watcher is not None:
            self.watcher(moment)

    @contextmanager
    def changing(self, what: str) -> "Generator[None, None, None]":
        """Report the moments before and after the change in the block."""
        self.tell(f"before {what}")
        yield
        self.tell(f"after {what}")
