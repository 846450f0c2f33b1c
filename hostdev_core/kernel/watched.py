"""Doors: what changes the machine or the ledger goes through one, and a harness may watch it."""

from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Watched:
    """One way to change things; `watcher` is Host.watch's."""

    watcher: "Callable[[str], None] | None" = None

    def tell(self, moment: str) -> None:
        """Tell whoever watches of this moment."""
        if self.watcher is not None:
            self.watcher(moment)

    @contextmanager
    def changing(self, what: str) -> "Generator[None, None, None]":
        """Around one change: tell of the moment before it and of the one after."""
        self.tell(f"before {what}")
        yield
        self.tell(f"after {what}")
