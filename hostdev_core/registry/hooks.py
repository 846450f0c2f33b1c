"""Typed calls of the hooks that plugins implement, as one connection makes them."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from hostdev_core.errors import HostdevError, PluginError, VetoError
from hostdev_core.hookspecs import Refusal
from hostdev_core.registry.validation import refusals_in, refusing_rules

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.model.device import PCIDevice, USBDevice
    from hostdev_core.model.domain import Domain

    Devices = Sequence[PCIDevice | USBDevice]

MANY = {
    "hostdev_check",
    "hostdev_rules",
    "hostdev_state_drivers",
}  # which may answer with a generator
log = logging.getLogger("hostdev")


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

    def rules(self) -> frozenset[str] | None:
        """The rules that plugins refuse by; None where one that refuses does not say."""
        told = {
            call.plugin: refusing_rules(call(), call.plugin)
            for call in self._calls("hostdev_rules")
        }
        silent = {call.plugin for call in self._calls("hostdev_check")} - told.keys()
        return None if silent else frozenset[str]().union(*told.values())

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
