"""The registry: load plugins, register them, and fill the driver table with their drivers."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import pluggy

from hostdev_core import hookspecs
from hostdev_core.driver import HostdevDriver
from hostdev_core.errors import Origin, PluginError
from hostdev_core.registry.driver_table import DriverTable
from hostdev_core.registry.entry_points import (
    Choice,
    Entry,
    describe_error,
    find_entry_points,
    find_origin,
)
from hostdev_core.registry.hooks import Hooks, list_answer, list_calls
from hostdev_core.registry.state_drivers import StateTable
from hostdev_core.registry.validation import check_form, check_is_list, name_of

if TYPE_CHECKING:
    from hostdev_core.connection import Connection

log = logging.getLogger("hostdev")


class Registry(StateTable):
    """Plugins, the driver table they fill, and their state drivers; empty when made.

    A context manager: its end calls `close`, which lets each state driver clean up.

    `load_errors` has a PluginError for each entry point that could not be loaded, perhaps one of two of a
    name; `missing` the names of required plugins that are not loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.driver_table = DriverTable()
        self.load_errors: list[PluginError] = []
        self.missing: tuple[str, ...] = ()
        self.choice = Choice()
        self._entry_points: dict[str, Entry] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def from_entry_points(cls, plugins: Collection[str] | None = None) -> "Registry":
        """Load the shipped drivers, then every other installed plugin, by name.

        `plugins` names those to load beside the shipped drivers: an empty one loads the shipped alone.
        InputError when one of them is not installed.

        A plugin that does not load is in `load_errors`; the others are loaded all the same. Those that
        `HOSTDEV_DISABLE_PLUGINS` names (with commas; "*": all but the shipped ones) are not even
        imported; while one that `HOSTDEV_REQUIRE_PLUGINS` names is missing, every change is refused.
        """
        registry = cls()
        found, registry.load_errors = find_entry_points()
        registry.choice = Choice.among(found, plugins)
        for entry_point in filter(registry.choice.takes, found):
            registry._load(entry_point)
        # One of two plugins of a name that failed counts as missing: it may be the one that checks.
        loaded = {*registry.plugins} - {error.plugin for error in registry.load_errors}
        registry.missing = tuple(sorted(registry.choice.required - loaded))
        return registry

    def check_loaded(self) -> None:
        """Warn, before a change, of plugins that did not load; PluginError when a required one is missing."""
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

    def _load(self, entry_point: Entry) -> None:
        """Import and register a plugin; an error goes to `load_errors`."""
        name = entry_point.name
        log.debug("plugin %s is %s", name, entry_point.value)
        try:
            self.register(entry_point.load(), name=name)
        except KeyboardInterrupt as stop:  # the user may have stopped a plugin that takes too long
            stop.add_note(f"plugin {name!r} ({find_origin(entry_point)}) was being loaded")
            raise
        except BaseException as error:  # a foreign import may raise anything, SystemExit too
            origin = find_origin(entry_point)
            message = f"plugin {name!r} ({origin}) does not load: {describe_error(error)}"
            hook = error.hook if isinstance(error, PluginError) else None
            failed = PluginError(message, plugin=name, hook=hook, origin=origin)
            self.load_errors.append(failed)
        else:
            self._entry_points[name] = entry_point

    def register(self, plugin: object, *, name: str | None = None) -> str:
        """Add a plugin with all its drivers, or nothing of it; return the name it is registered under.

        Raises PluginError for hooks of unknown names or arguments, DriverConflictError for drivers
        that conflict with another plugin's.
        """
        name = name or name_of(plugin)
        if self._manager.is_registered(plugin) or self._manager.has_plugin(name):
            other = self._entry_points.get(name)
            whose = f", from {find_origin(other)}" if other else ""
            raise PluginError(f"plugin {name} is registered already{whose}", plugin=name)
        try:
            self._manager.register(plugin, name)
        except (ValueError, TypeError, pluggy.PluginValidationError) as error:
            # pluggy before 1.7 raises half way through, and keeps the plugin.
            if self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)
            raise PluginError(
                f"plugin {name} cannot be registered: {error}", plugin=name
            ) from error
        try:
            check_form(self._manager, plugin, name)
            self.driver_table.register(self._drivers_of(plugin, name), name)
        except BaseException:
            self._manager.unregister(plugin)
            raise
        return name

    def _drivers_of(self, plugin: object, name: str) -> list[HostdevDriver]:
        """Call hostdev_drivers of this plugin alone: pluggy would call all plugins'."""
        for impl in self._manager.hook.hostdev_drivers.get_hookimpls():
            if impl.plugin is plugin:
                try:
                    answer: object = impl.function()
                    drivers = [*cast("Iterable[HostdevDriver]", answer)]
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # sys.exit() too
                    raise PluginError(
                        f"plugin {name}: hostdev_drivers raised {error!r}",
                        plugin=name,
                        hook="hostdev_drivers",
                    ) from error
                check_is_list(answer, name, "hostdev_drivers")
                return drivers
        return []

    def _state_driver_hooks(self, driver: HostdevDriver) -> "dict[str, Callable[..., Any]]":
        others = self._of_other_drivers(driver)
        calls = list_calls(self._manager, "hostdev_state_drivers", others)
        return {call.plugin: call for call in calls}

    @property
    def plugins(self) -> dict[str, object]:
        """The registered plugins by name, in the order of registration."""
        return {
            name: plugin for name, plugin in self._manager.list_name_plugin() if plugin is not None
        }

    def origin_of(self, name: str) -> Origin | None:
        """Find the origin of an installed plugin; None for one that the program registered itself."""
        entry_point = self._entry_points.get(name)
        return None if entry_point is None else find_origin(entry_point)

    def hooks_of(self, name: str) -> tuple[str, ...]:
        """Name the hooks that a plugin implements, sorted."""
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or ()
        return tuple(sorted(caller.name for caller in callers))

    def call(self, name: str, hook: str, arguments: "Mapping[str, object]") -> object:
        """Call one hook of one plugin, for a worker that does not have it; return its answer.

        Raises as the plugin does: the worker's own registry turns that into PluginError.
        """
        impls: list[pluggy.HookImpl] = getattr(self._manager.hook, hook).get_hookimpls()
        (impl,) = (impl for impl in impls if impl.plugin_name == name)
        answer: Any = impl.function(*(arguments[word] for word in impl.argnames))
        # A generator runs here, in the caller's process: it cannot be sent to the worker.
        return list_answer(hook, answer)

    def rules_of_plugins(self) -> tuple[str, ...]:
        """List the rules that plugins say they refuse by, sorted; a plugin need not say it.

        Raises PluginError for one whose answer is of another form.
        """
        named = Hooks(None, self._manager, frozenset()).named_rules()
        return tuple(sorted(frozenset[str]().union(*named.values())))

    def hooks_for(self, row: HostdevDriver, conn: "Connection") -> "Hooks":
        """Bind the hooks that a connection with this driver calls: not those of other drivers' plugins."""
        return Hooks(conn, self._manager, self._of_other_drivers(row))

    def _of_other_drivers(self, row: HostdevDriver) -> frozenset[str]:
        """The plugins that bring drivers, but not this one."""
        with_drivers = {self.driver_table.plugin_of(driver) for driver in self.driver_table}
        return frozenset(with_drivers - {self.driver_table.plugin_of(row)})
