"""Hear when the ledger changes: its directory may be made later, removed, or exchanged for another.

Nothing of it is opened: inotify watches directories. SQLite has committed when it deletes the journal beside
the file ("Atomic Commit In SQLite", 3.11); one that is made, or moved away, is a name that comes or goes.
"""

import os
from typing import NamedTuple

from hostdev_core.kernel.inotify import (
    CLOSED_WRITTEN,
    CREATED,
    DELETED,
    DELETED_ITSELF,
    DIRECTORY_ONLY,
    ENDED,
    MOVED_FROM,
    MOVED_ITSELF,
    MOVED_TO,
    NO_LINK,
    UNMOUNTED,
    Inotify,
    Notice,
)

_NAMES = CREATED | DELETED | MOVED_FROM | MOVED_TO
_ITSELF = DELETED_ITSELF | MOVED_ITSELF | UNMOUNTED | ENDED
# An operation alone opens its file for writing: when the last process that may still write for it ends, the
# kernel closes it.
_OPERATIONS = DELETED | MOVED_FROM | CLOSED_WRITTEN


class Heard(NamedTuple):
    """What a notice means: the ledger may have changed, or these operations have ended."""

    ledger: bool = False
    ended: frozenset[str] = frozenset()


class StateDirectory:
    """Watches a state directory, the operations in it, and the nearest directory above that is there."""

    def __init__(self, inotify: Inotify, directory: str) -> None:
        self._inotify = inotify
        self._directory = directory
        self._above: tuple[int, str] = (-1, "")  # with the name that leads to the directory
        self._own = self._operations = -1
        self.listen()

    def listen(self) -> None:
        """Watch what is there now, in the place of what was watched before.

        All has to be looked at again after it: what happened before is not heard.
        """
        for watch in (self._above[0], self._own, self._operations):
            if watch != -1:
                self._inotify.remove(watch)
        self._above = self._watch_above()
        self._own = self._watch(self._directory, _NAMES | DELETED_ITSELF | MOVED_ITSELF)
        self._operations = self._watch(f"{self._directory}/op", _OPERATIONS | DELETED_ITSELF)

    def heard(self, notice: Notice) -> Heard:
        """Tell what a notice means; nothing, for one of another watch."""
        if notice.watch == self._above[0]:
            is_ours = notice.name == self._above[1] or notice.mask & _ITSELF
            return self._renewed() if is_ours else Heard()
        if notice.watch == self._own:
            return self._in_directory(notice)
        if notice.watch == self._operations:
            if notice.mask & _ITSELF:
                return self._renewed()
            return Heard(ended=frozenset({notice.name}))
        return Heard()

    def _in_directory(self, notice: Notice) -> Heard:
        if notice.mask & _ITSELF or notice.name == "op":
            return self._renewed()
        is_commit = notice.name == "state.db-journal" and notice.mask & DELETED
        return Heard(ledger=bool(notice.name == "state.db" or is_commit))

    def _renewed(self) -> Heard:
        self.listen()
        return Heard(ledger=True)

    def _watch_above(self) -> tuple[int, str]:
        """Watch the parent, or the nearest directory above it that is there."""
        above, name = os.path.split(self._directory)
        while True:
            watch = self._watch(above, _NAMES | DELETED_ITSELF | MOVED_ITSELF, flags=0)
            if watch != -1 and self._is_nearest(above, name):
                return watch, name
            if watch != -1:  # what was missing in it has come meanwhile
                self._inotify.remove(watch)
                above, name = os.path.split(self._directory)
            elif os.path.lexists(
                above
            ):  # this user may not look into it, nor see what is made there
                return -1, name
            else:
                above, name = os.path.split(above)

    def _is_nearest(self, above: str, name: str) -> bool:
        is_parent = above == os.path.dirname(self._directory)
        return is_parent or not os.path.lexists(os.path.join(above, name))

    def _watch(self, path: str, mask: int, *, flags: int = NO_LINK) -> int:
        """Watch a directory; -1 where there is none, or none that this user may look into."""
        try:
            return self._inotify.add(path, mask | DIRECTORY_ONLY | flags)
        except OSError:
            return -1
