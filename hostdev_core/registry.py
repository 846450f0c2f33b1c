"""The registry: plugins, their rows, and typed calls of their hooks. The only caller of pluggy."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, cast

import attrs
import pluggy

from hostdev_core import hookspecs
from hostdev_core.driver import HostdevDriver
from hostdev_core.driver_table import DriverTable
from hostdev_core.entries import Choice, find_entries
from hostdev_core.errors import HostdevError, PluginError, VetoError
from hostdev_core.hookspecs import Refusal
from hostdev_core.origin import Origin, find_origin, tell
from hostdev_core.plugin_form import check_form, name_of, refusals_in
from hostdev_core.state_table import StateTable

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.domain import Domain
    from hostdev_core.pci import PCIDevice
    from hostdev_core.usb import USBDevice

    Devices = Sequence[PCIDevice | USBDevice]

MANY = {"hostdev_check", "hostdev_state_drivers"}  # which may answer with a generator
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
    def from_entry_points(cls) -> "Registry":
        """The shipped drivers first, then every other installed plugin, by name.

        A plugin that does not load is in `load_errors` and keeps nobody else out. Those that
        `HOSTDEV_DISABLE_PLUGINS` names (with commas; "*": all but the shipped ones) are not even
        imported; while one that `HOSTDEV_REQUIRE_PLUGINS` names is missing, nothing is changed.
        """
        registry = cls()
        entries, registry.load_errors = find_entries()
        registry.choice = Choice.among(entries)
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
        return [*answer] if hook == "hostdev_check" and answer is not None else answer

    def hooks_for(self, row: HostdevDriver) -> "Hooks":
        """The hooks that a connection with this driver calls."""
        strangers = {self.driver_table.plugin_of(other) for other in self.driver_table}
        return Hooks(self._manager, frozenset(strangers - {self.driver_table.plugin_of(row)}))


@attrs.frozen
class Hooks:
    """One short method for each hook; plugins in `_deaf` (other drivers' own) do not hear."""

    _manager: pluggy.PluginManager
    _deaf: frozenset[str]

    def state_drivers(self) -> "list[_Call]":
        """To be called with `host`."""
        return self._calls("hostdev_state_drivers")

    def connection_opened(self, conn: "Connection") -> None:
        """Stops at the first plugin that raises."""
        for call in self._calls("hostdev_connection_opened"):
            call(conn=conn)

    def connection_closing(self, conn: "Connection") -> None:
        """Every plugin is called; what they raise is logged."""
        for error in self._all("hostdev_connection_closing", conn=conn):
            log.error("%s", error)

    def check(
        self, conn: "Connection", domain: "Domain | None", devices: "Devices"
    ) -> list[Refusal]:
        """The refusals of all plugins; one that raises VetoError refuses with what it carries."""
        refusals: list[Refusal] = []
        for call in self._calls("hostdev_check"):
            try:
                refusals += refusals_in(
                    call(conn=conn, domain=domain, devices=devices), call.plugin
                )
            except VetoError as error:
                carried = [r for r in error.refusals if isinstance(r, Refusal)]
                refusals += carried or [
                    Refusal("veto", device.name, str(error)) for device in devices[:1]
                ]
        return refusals

    def before_prepare(
        self, conn: "Connection", domain: "Domain | None", devices: "Devices", called: list[str]
    ) -> None:
        """Stops at the first that raises; `called` gets the names of those that were called."""
        for call in self._calls("hostdev_before_prepare"):
            called.append(call.plugin)
            call(conn=conn, domain=domain, devices=devices)

    def after_prepare(
        self, conn: "Connection", domain: "Domain | None", devices: "Devices"
    ) -> None:
        """Stops at the first that raises."""
        for call in self._calls("hostdev_after_prepare"):
            call(conn=conn, domain=domain, devices=devices)

    def prepare_failed(
        self,
        conn: "Connection",
        domain: "Domain | None",
        devices: "Devices",
        error: BaseException,
        called: Sequence[str],
    ) -> None:
        """All but those whose before_prepare was not reached; what they raise becomes a note."""
        skipped = {call.plugin for call in self._calls("hostdev_before_prepare")} - {*called}
        for call in self._calls("hostdev_prepare_failed"):
            if call.plugin not in skipped:
                try:
                    call(conn=conn, domain=domain, devices=devices, error=error)
                except HostdevError as problem:
                    error.add_note(str(problem))

    def before_reattach(
        self, conn: "Connection", domain: "Domain | None", devices: "Devices"
    ) -> list[Exception]:
        """Every plugin is called; what they raise is returned."""
        return self._all("hostdev_before_reattach", conn=conn, domain=domain, devices=devices)

    def after_reattach(
        self,
        conn: "Connection",
        domain: "Domain | None",
        devices: "Devices",
        errors: Mapping[str, Exception],
    ) -> list[Exception]:
        """Every plugin is called; what they raise is returned."""
        hook = "hostdev_after_reattach"
        return self._all(hook, conn=conn, domain=domain, devices=devices, errors=errors)

    def _calls(self, hook: str) -> "list[_Call]":
        """The implementations of a hook in pluggy's order."""
        impls = reversed(getattr(self._manager.hook, hook).get_hookimpls())
        return [_Call(hook, impl) for impl in impls if impl.plugin_name not in self._deaf]

    def _all(self, hook: str, **arguments: object) -> list[Exception]:
        errors: list[Exception] = []
        for call in self._calls(hook):
            try:
                call(**arguments)
            except HostdevError as error:
                errors.append(error)
        return errors


class _Call:
    """One plugin's implementation of one hook; it may take fewer arguments than there are."""

    def __init__(self, hook: str, impl: pluggy.HookImpl) -> None:
        self.hook = hook
        self.plugin = impl.plugin_name
        self._impl = impl

    def __call__(self, **arguments: object) -> Any:
        try:
            answer: Any = self._impl.function(*(arguments[name] for name in self._impl.argnames))
            return [*answer] if self.hook in MANY and answer is not None else answer
        except VetoError:
            raise
        except KeyboardInterrupt as stop:  # a signal's; it may be the plugin that takes too long
            stop.add_note(f"{self.hook} of plugin {self.plugin!r} was at work")
            raise
        except BaseException as error:  # a plugin that calls sys.exit() ends nobody's program
            raise PluginError(
                f"plugin {self.plugin}: {self.hook} raised {error!r}",
                plugin=self.plugin,
                hook=self.hook,
            ) from error
