"""Entry points of distributions that are installed in the usual way, read without importlib.metadata.

Importing that takes longer than all else at the start of a command: it brings email, csv and zipfile. What is
plain here is read to the same answer, name by name and in the same order; for everything else the answer is
None, and importlib.metadata has to be asked.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_KINDS = (".dist-info", ".egg-info")
_SEPARATORS = re.compile("[-_.]+")


class NotPlainError(ValueError):
    """Something that importlib.metadata alone is to judge."""


class PlainEntryPoint(NamedTuple):
    """What hostdev uses of an importlib.metadata.EntryPoint, of the distribution that `folder` describes."""

    name: str
    value: str
    folder: str

    @property
    def module(self) -> str:
        """The module that the value names."""
        return self.value.partition(":")[0]

    @property
    def dist(self) -> "Distribution":
        """The distribution, by importlib.metadata: for messages."""
        from importlib.metadata import Distribution

        return Distribution.at(self.folder)

    @property
    def distribution_name(self) -> str | None:
        """The name that the distribution's METADATA begins with; None where its form is not the usual."""
        with suppress(OSError, ValueError):
            lines = [*_read(self.folder, "METADATA").split("\n", 3), "", "", ""]
            is_whole = not lines[2].startswith((" ", "\t"))  # the name ends with its line
            if lines[0].startswith("Metadata-Version: ") and lines[1].startswith("Name: "):
                return lines[1][len("Name: ") :] if is_whole else None
        return None

    def load(self) -> Any:
        """Import the module; return it, or what the value names in it."""
        found: Any = import_module(self.module)
        for name in filter(None, self.value.partition(":")[2].split(".")):
            found = getattr(found, name)
        return found


def find_plain(group: str) -> list[PlainEntryPoint] | None:
    """Find the entry points of a group, in importlib.metadata's order; None where that has to be asked."""
    # Another finder brings distributions of its own; importlib_metadata takes the place of Python's.
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    if len(finders) != 1 or finders[0] is not PathFinder:
        return None
    try:
        return [entry for folder in _distributions() for entry in _entries_in(folder, group)]
    except (OSError, ValueError):  # a damaged list, or one that cannot be read
        return None


def _distributions() -> Iterator[str]:
    """Yield the folder of each distribution; of several of one name the first on sys.path."""
    seen: set[str] = set()
    for path in sys.path:
        for child in _children(path):
            if not child.lower().endswith(_KINDS):
                continue
            name = child[: -len(_KINDS[0])].partition("-")[0]
            if not child.endswith(_KINDS) or not child.isascii() or not name:
                raise NotPlainError(child)
            name = _SEPARATORS.sub("-", name).lower()
            if name not in seen:
                seen.add(name)
                yield os.path.join(path, child)


def _children(path: str) -> list[str]:
    """List a folder of sys.path. Zips and eggs are not plain; OSError for what cannot be listed."""
    if not isinstance(path, str) or path.lower().endswith(".egg"):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise NotPlainError(path)
    with suppress(FileNotFoundError):  # Python's own zip, which hardly anybody has
        return os.listdir(path or ".")
    return []


def _entries_in(folder: str, group: str) -> Iterator[PlainEntryPoint]:
    section: str | None = None
    for line in map(str.strip, _read(folder, "entry_points.txt").splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
            continue
        name, equals, value = line.partition("=")
        if section is not None and not equals:
            raise NotPlainError(line)
        if section == group:
            yield PlainEntryPoint(name.strip(), _plain(value.strip()), folder)


def _plain(value: str) -> str:
    """Return a value of the form `module` or `module:name`; NotPlainError for one with extras or garbage."""
    words = value.replace(":", ".", 1).split(".")
    if not value.isascii() or not all(map(str.isidentifier, words)):
        raise NotPlainError(value)
    return value


def _read(folder: str, name: str) -> str:
    """Read a text of a distribution; an empty one where it is missing, or the user may not read it."""
    with (
        suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError),
        open(os.path.join(folder, name), encoding="utf-8") as file,
    ):
        return file.read()
    return ""
