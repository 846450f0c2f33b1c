"""Which plugins are installed: the entry points of the group `hostdev`. Nothing is imported here."""

import os
from collections.abc import Collection, Iterable
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import NamedTuple

from hostdev_core.errors import InputError, PluginError
from hostdev_core.registry.origin import name_of_distribution

GROUP = "hostdev"
SHIPPED = ("libxl", "qemu", "test")


def names_in(variable: str) -> frozenset[str]:
    """The names, separated by commas, in a variable of the environment."""
    return frozenset(filter(None, map(str.strip, os.environ.get(variable, "").split(","))))


class Choice(NamedTuple):
    """Which of the installed plugins the environment leaves out, and which it cannot do without.

    `asked` are those that are wanted beside the shipped ones; None: all that are installed.
    """

    installed: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    asked: frozenset[str] | None = None

    @classmethod
    def among(cls, entries: Iterable[EntryPoint], asked: Collection[str] | None = None) -> "Choice":
        """What `HOSTDEV_DISABLE_PLUGINS` and `HOSTDEV_REQUIRE_PLUGINS` say; who is required is asked for.

        InputError when one that is asked for is not installed.
        """
        disabled, required = map(names_in, ("HOSTDEV_DISABLE_PLUGINS", "HOSTDEV_REQUIRE_PLUGINS"))
        installed = frozenset(entry.name for entry in entries)
        if asked is None:
            return cls(installed, disabled, required)
        choice = cls(installed, disabled, required, required.union(asked))
        for name in sorted({*asked} - installed):
            raise InputError(f"plugin {name!r} {choice.why_absent(name)}")
        return choice

    def takes(self, entry: EntryPoint) -> bool:
        """Whether a plugin is to be loaded; "*" leaves out all but the shipped ones."""
        if entry.name in self.disabled:
            return False
        if entry.name in SHIPPED:
            return True
        return "*" not in self.disabled and (self.asked is None or entry.name in self.asked)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names of plugins to leave out that nobody has."""
        return tuple(sorted(self.disabled - self.installed - {"*"}))

    def why_absent(self, name: str) -> str:
        """What is said of a plugin that was not loaded."""
        if name in self.installed:
            return "is disabled by HOSTDEV_DISABLE_PLUGINS"
        from difflib import get_close_matches  # here: for a message only

        near = get_close_matches(name, self.installed, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        return f"is not installed (installed: {', '.join(sorted(self.installed))}){meant}"


def find_entries() -> tuple[list[EntryPoint], list[PluginError]]:
    """The shipped drivers' first, then all others by name; an error for each list that is damaged."""
    errors: list[PluginError] = []
    try:
        found = [*entry_points(group=GROUP)]
    except Exception:  # one distribution's list is damaged, and all are read at once
        found = _one_by_one(errors)
    return sorted(found, key=_rank), errors


def _one_by_one(errors: list[PluginError]) -> list[EntryPoint]:
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


def _rank(entry: EntryPoint) -> tuple[int, str]:
    ours = entry.name in SHIPPED and name_of_distribution(entry.dist) == "hostdev"
    return (SHIPPED.index(entry.name) if ours else len(SHIPPED), entry.name)
