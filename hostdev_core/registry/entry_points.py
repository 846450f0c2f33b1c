"""Installed plugins: the entry points of the group `hostdev`, which of them to load, and their origin.

Listing and choosing import no plugin. `find_origin` alone may import the packages around a plugin's module,
so it is called for messages and for `hostdev plugins` only.
"""

import importlib
import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hostdev_core.errors import HostdevError, InputError, Origin, PluginError
from hostdev_core.model.spelling import nearest
from hostdev_core.registry.plain_entry_points import PlainEntryPoint, find_plain

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

Entry: TypeAlias = "EntryPoint | PlainEntryPoint"
GROUP = "hostdev"
SHIPPED = ("libxl", "qemu", "test")
MESSAGE_LIMIT = 500  # characters of a message that a plugin wrote
# Frames of these folders are the loading itself: the registry, and the importlib that it calls.
_LOADER_FOLDERS = tuple(
    f"{os.path.dirname(os.path.abspath(f))}/" for f in (__file__, importlib.__file__)
)


def names_in(variable: str) -> frozenset[str]:
    """Split a variable of the environment at its commas into names."""
    return frozenset(filter(None, map(str.strip, os.environ.get(variable, "").split(","))))


class Choice(NamedTuple):
    """The plugins that the environment disables, those it requires, and those the program asked for.

    `asked` are loaded beside the shipped ones; None: all that are installed.
    """

    installed: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    asked: frozenset[str] | None = None

    @classmethod
    def among(cls, entries: Iterable[Entry], asked: Collection[str] | None = None) -> "Choice":
        """Read `HOSTDEV_DISABLE_PLUGINS` and `HOSTDEV_REQUIRE_PLUGINS`; required plugins are asked for too.

        InputError when a name in `asked` is not installed.
        """
        disabled, required = map(names_in, ("HOSTDEV_DISABLE_PLUGINS", "HOSTDEV_REQUIRE_PLUGINS"))
        installed = frozenset(entry.name for entry in entries)
        if asked is None:
            return cls(installed, disabled, required)
        choice = cls(installed, disabled, required, required.union(asked))
        for name in sorted({*asked} - installed):
            raise InputError(f"plugin {name!r} {choice.why_absent(name)}")
        return choice

    def takes(self, entry: Entry) -> bool:
        """Tell whether a plugin is to be loaded; "*" disables all but the shipped ones."""
        if entry.name in self.disabled:
            return False
        if entry.name in SHIPPED:
            return True
        return "*" not in self.disabled and (self.asked is None or entry.name in self.asked)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The disabled names under which no plugin is installed, sorted."""
        return tuple(sorted(self.disabled - self.installed - {"*"}))

    def why_absent(self, name: str) -> str:
        """Say, for a message, why a plugin was not loaded: disabled, or not installed."""
        if name in self.installed:
            return "is disabled by HOSTDEV_DISABLE_PLUGINS"
        near = nearest(name, self.installed)
        meant = f"; did you mean {near!r}?" if near else ""
        return f"is not installed (installed: {', '.join(sorted(self.installed))}){meant}"


def find_entry_points() -> tuple[list[Entry], list[PluginError]]:
    """Find the plugins' entry points, and an error for each distribution whose list is damaged.

    The shipped drivers' come first, then all others by name.
    """
    errors: list[PluginError] = []
    found: Iterable[Entry] | None = find_plain(GROUP)
    if found is None:
        found = _ask_importlib(errors)
    return sorted(found, key=_rank), errors


def _ask_importlib(errors: list[PluginError]) -> "Iterable[EntryPoint]":
    from importlib.metadata import entry_points

    try:
        return entry_points(group=GROUP)
    except Exception:  # one distribution's list is damaged, and all are read at once
        return _one_by_one(errors)


def _one_by_one(errors: list[PluginError]) -> "list[EntryPoint]":
    """Read the list of each distribution alone; `errors` gets one for each that cannot be read."""
    from importlib.metadata import distributions

    found: dict[str, list[EntryPoint]] = {}
    for number, dist in enumerate(distributions()):
        name = f"distribution {number}"
        try:
            name = dist.name or name
            entries = [entry for entry in dist.entry_points if entry.group == GROUP]
            found.setdefault(name, entries)  # an earlier folder of sys.path goes first
        except Exception as error:
            message = f"the entry points of {name} cannot be read: {error}"
            errors.append(PluginError(message, plugin=name))
    return [entry for entries in found.values() for entry in entries]


def _rank(entry: Entry) -> tuple[int, str]:
    # Another distribution may use a shipped driver's name: it does not get the place in front.
    ours = entry.name in SHIPPED and _distribution_of(entry) == "hostdev"
    return (SHIPPED.index(entry.name) if ours else len(SHIPPED), entry.name)


def _distribution_of(entry: Entry) -> str | None:
    """Read the name of an entry point's distribution; None where it has none that can be read."""
    if isinstance(entry, PlainEntryPoint) and entry.distribution_name is not None:
        return entry.distribution_name
    return name_of_distribution(entry.dist)


def find_origin(entry: Entry) -> Origin:
    """Find the origin of an entry point; its module need not be importable."""
    return Origin(_title_of(entry.dist), entry.value, _file_of(entry))


def name_of_distribution(dist: "Distribution | None") -> str | None:
    """Read a distribution's name; None where its METADATA cannot be read, or has none."""
    try:
        return None if dist is None else dist.name
    except Exception:  # UnicodeDecodeError, or anything that a foreign finder raises
        return None


def _title_of(dist: "Distribution | None") -> str | None:
    name = name_of_distribution(dist)
    return f"{name} {dist.version}" if name and dist is not None else None


def _file_of(entry: Entry) -> str | None:
    from importlib.util import find_spec  # here: for a message only

    try:
        spec = find_spec(entry.module)  # imports the packages around it, and they may do anything
    except KeyboardInterrupt:
        raise
    except BaseException:
        spec = None
    if spec is not None and spec.has_location:
        return spec.origin
    return None if entry.dist is None else str(entry.dist.locate_file(""))


def describe_error(error: BaseException) -> str:
    """Describe an error: its type, its message cut short, and the plugin's line that raised it."""
    kind = "" if isinstance(error, HostdevError) else type(error).__name__
    text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    # The registry's own PluginError has no frame in the plugin; the error that it was raised from does.
    place = _place_of(error) or (error.__cause__ and _place_of(error.__cause__))
    return ": ".join(filter(None, (kind, text[:MESSAGE_LIMIT]))) + (f" ({place})" if place else "")


def _place_of(error: BaseException) -> str | None:
    """Find the last line of the traceback that is not the loader's own."""
    if isinstance(error, SyntaxError) and error.filename:  # its traceback ends in importlib
        return f"{error.filename}:{error.lineno}"
    import traceback  # here: for a message only

    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<frozen importlib", *_LOADER_FOLDERS)):
            return f"{frame.filename}:{frame.lineno}"
    return None
