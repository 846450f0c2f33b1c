"""The registry: plugins, and the driver table that they fill."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, cast

import pluggy

from hostdev_core import hookspecs
from hostdev_core.driver import HostdevDriver
from hostdev_core.errors import PluginError
from hostdev_core.registry.driver_table import DriverTable
from hostdev_core.registry.entry_points import Choice, find_entries
from hostdev_core.registry.hooks import MANY, Hooks
from hostdev_core.registry.origin import Origin, find_origin, tell
from hostdev_core.registry.state_drivers import StateTable
from hostdev_core.registry.validation import check_form, name_of

log = logging.getLogger("hostdev")


class Registry(StateTable):
    """Plugins, the driver table they fill, and their state drivers; empty when made.

    A context manager: `close` at its end puts the state drivers' scaffolding away.

    `load_errors` has a PluginError for each entry point that could not be loaded, perhaps one of two of a
    name; `missing` the names that are required and not there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.driver_table = DriverTable()
        self.load_errors: list[PluginError] = []
        self.missing: tuple[str, ...] = ()
        self.choice = Choice()
        self._entries: dict[str, EntryPoint] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def from_entry_points(cls, plugins: Collection[str] | None = None) -> "Registry":
        """The shipped drivers first, then every other installed plugin, by name.

        `plugins` names those that are wanted beside the shipped drivers: none for an empty one.
        InputError when one of them is not installed.

        A plugin that does not load is in `load_errors` and keeps nobody else out. Those that
        `HOSTDEV_DISABLE_PLUGINS` names (with commas; "*": all but the shipped ones) are not even
        imported; while one that `HOSTDEV_REQUIRE_PLUGINS` names is missing, nothing is changed.
        """
        registry = cls()
        entries, registry.load_errors = find_entries()
        registry.choice = Choice.among(entries, plugins)
        for entry in filter(registry.choice.takes, entries):
            registry._load(entry)
        there = {*registry.plugins} - {error.plugin for error in registry.load_errors}
        registry.missing = tuple(sorted(registry.choice.required - there))
        return registry

    def check_loaded(self) -> None:
        """Warn, before a change, of what does not load; PluginError when a required one is missing."""
        for name in self.missing:
            reasons = (str(error) for error in self.load_errors if error.plugin == name)
            reason = next(reasons, None) or self.choice.why_absent(name)
            raise PluginError(
                f"plugin {name!r} is required by HOSTDEV_REQUIRE_PLUGINS and missing: {reason};"
                " nothing was changed",
                plugin=name,
            )
        for name in self.choice.unknown:
            why = self.choice.why_absent(name)
            log.warning("HOSTDEV_DISABLE_PLUGINS names plugin %r, which %s", name, why)
        for error in self.load_errors:
            log.warning("%s; nothing that it checks is checked (`hostdev plugins`)", error)

    def _load(self, entry: EntryPoint) -> None:
        log.debug("plugin %s is %s", entry.name, entry.value)
        try:
            self.register(entry.load(), name=entry.name)
        except KeyboardInterrupt as stop:  # it may be the one that takes too long
            stop.add_note(f"plugin {entry.name!r} ({find_origin(entry)}) was being loaded")
            raise
        except BaseException as error:  # whatever a foreign import raises, sys.exit() too
            origin = find_origin(entry)
            message = f"plugin {entry.name!r} ({origin}) does not load: {tell(error)}"
            hook = error.hook if isinstance(error, PluginError) else None
            failed = PluginError(message, plugin=entry.name, hook=hook, origin=origin)
            self.load_errors.append(failed)
        else:
            self._entries[entry.name] = entry

    def register(self, plugin: object, *, name: str | None = None) -> str:
        """Add a plugin with all its rows, or nothing of it; the name it is known by.

        Raises PluginError for hooks of unknown names or arguments, DriverConflictError for rows
        that conflict.
        """
        name = name or name_of(plugin)
        if self._manager.is_registered(plugin) or self._manager.has_plugin(name):
            other = self._entries.get(name)
            whose = f", from {find_origin(other)}" if other else ""
            raise PluginError(f"plugin {name} is registered already{whose}", plugin=name)
        try:
            self._manager.register(plugin, name)
        except (ValueError, TypeError, pluggy.PluginValidationError) as error:
            if self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)
            raise PluginError(
                f"plugin {name} cannot be registered: {error}", plugin=name
            ) from error
        try:
            check_form(self._manager, plugin, name)
            self.driver_table.register(self._rows_of(plugin, name), name)
        except BaseException:
            self._manager.unregister(plugin)
            raise
        return name

    def _rows_of(self, plugin: object, name: str) -> list[HostdevDriver]:
        for impl in self._manager.hook.hostdev_drivers.get_hookimpls():
            if impl.plugin is plugin:
                try:
                    return list(cast("Iterable[HostdevDriver]", impl.function()))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # sys.exit() too
                    raise PluginError(
                        f"plugin {name}: hostdev_drivers raised {error!r}",
                        plugin=name,
                        hook="hostdev_drivers",
                    ) from error
        return []

    def _bringers(self, row: HostdevDriver) -> "dict[str, Callable[..., Any]]":
        return {call.plugin: call for call in self.hooks_for(row).state_drivers()}

    @property
    def plugins(self) -> dict[str, object]:
        """The registered plugins by name, in the order of registration."""
        return {
            name: plugin for name, plugin in self._manager.list_name_plugin() if plugin is not None
        }

    def origin_of(self, name: str) -> Origin | None:
        """Where an installed plugin comes from; None for one that was registered by hand."""
        entry = self._entries.get(name)
        return None if entry is None else find_origin(entry)

    def hooks_of(self, name: str) -> tuple[str, ...]:
        """The hooks that a plugin implements, by name."""
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or ()
        return tuple(sorted(caller.name for caller in callers))

    def call(self, name: str, hook: str, arguments: "Mapping[str, object]") -> object:
        """What one plugin answers to one hook, or raises; for a worker that does not have it."""
        impls: list[pluggy.HookImpl] = getattr(self._manager.hook, hook).get_hookimpls()
        (impl,) = (impl for impl in impls if impl.plugin_name == name)
        answer: Any = impl.function(*(arguments[word] for word in impl.argnames))
        return [*answer] if hook in MANY and answer is not None else answer

    def hooks_for(self, row: HostdevDriver) -> "Hooks":
        """The hooks that a connection with this driver calls."""
        strangers = {self.driver_table.plugin_of(other) for other in self.driver_table}
        return Hooks(self._manager, frozenset(strangers - {self.driver_table.plugin_of(row)}))
