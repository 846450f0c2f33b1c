"""Where a plugin comes from, and where in it something went wrong."""

import importlib
import os
import traceback
from importlib.metadata import Distribution, EntryPoint
from importlib.util import find_spec
from typing import NamedTuple

from hostdev_core.errors import HostdevError

MOST = 500  # letters of somebody else's message
NOT_THEIRS = tuple(
    f"{os.path.dirname(os.path.abspath(f))}/" for f in (__file__, importlib.__file__)
)


class Origin(NamedTuple):
    """The distribution ("audit 1.0"), the entry point's value and the file of its module."""

    distribution: str | None
    value: str
    file: str | None

    def __str__(self) -> str:
        return ", ".join(
            part for part in (self.distribution, f"entry point {self.value}", self.file) if part
        )


def find_origin(entry: EntryPoint) -> Origin:
    """What is known of an entry point; its module need not be importable."""
    return Origin(_title_of(entry.dist), entry.value, _file_of(entry))


def name_of_distribution(dist: Distribution | None) -> str | None:
    """Its name; None where its METADATA cannot be read, or has none."""
    try:
        return None if dist is None else dist.name
    except Exception:  # UnicodeDecodeError, or what a finder of somebody else's raises
        return None


def _title_of(dist: Distribution | None) -> str | None:
    name = name_of_distribution(dist)
    return f"{name} {dist.version}" if name and dist is not None else None


def _file_of(entry: EntryPoint) -> str | None:
    try:
        spec = find_spec(entry.module)  # imports the packages around it, and they may do anything
    except KeyboardInterrupt:
        raise
    except BaseException:
        spec = None
    if spec is not None and spec.has_location:
        return spec.origin
    return None if entry.dist is None else str(entry.dist.locate_file(""))


def tell(error: BaseException) -> str:
    """An error with its type, and the line of the plugin that raised it."""
    kind = "" if isinstance(error, HostdevError) else type(error).__name__
    text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    place = _place_of(error) or (error.__cause__ and _place_of(error.__cause__))
    return ": ".join(filter(None, (kind, text[:MOST]))) + (f" ({place})" if place else "")


def _place_of(error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<frozen importlib", *NOT_THEIRS)):
            return f"{frame.filename}:{frame.lineno}"
    return None
