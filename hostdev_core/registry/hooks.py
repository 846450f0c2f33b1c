"""Typed calls of the plugins' hooks, as one connection makes them."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from hostdev_core.errors import HostdevError, PluginError, VetoError
from hostdev_core.model.rulebook import Refusal
from hostdev_core.registry.validation import check_is_list, refusals_in, refusing_rules

if TYPE_CHECKING:
    from hostdev_core.model.device import Device
    from hostdev_core.model.domain import Domain

    Devices = Sequence[Device]

# These hooks may answer with a generator. It is run at once: what it raises is then the plugin's error.
GENERATOR_HOOKS = {"hostdev_check", "hostdev_rules", "hostdev_state_drivers"}
log = logging.getLogger("hostdev")


@attrs.frozen
class Hooks:
    """One short method for each hook. The plugins in `_not_called`, those of other drivers, are left out."""

    _conn: object
    _manager: pluggy.PluginManager
    _not_called: frozenset[str]

    def connection_opened(self) -> None:
        """Call every plugin; stop at the first that raises."""
        for call in self._calls("hostdev_connection_opened"):
            call(conn=self._conn)

    def connection_closing(self) -> None:
        """Call every plugin; log the errors."""
        for error in self._all("hostdev_connection_closing", conn=self._conn):
            log.error("%s", error)

    def check(self, domain: "Domain | None", devices: "Devices") -> list[Refusal]:
        """Collect the refusals of all plugins; one that raises VetoError refuses with those it carries.

        A VetoError without refusals refuses the first device by the rule "veto".
        """
        refusals: list[Refusal] = []
        for call in self._calls("hostdev_check"):
            try:
                refusals += refusals_in(
                    call(conn=self._conn, domain=domain, devices=devices), call.plugin
                )
            except VetoError as error:
                carried = [r for r in error.refusals if isinstance(r, Refusal)]
                refusals += carried or [
                    Refusal("veto", device.name, str(error)) for device in devices[:1]
                ]
        return refusals

    def rules(self) -> frozenset[str] | None:
        """Collect the rules that plugins refuse by; None where one with hostdev_check lacks this hook."""
        named = self.named_rules()
        unnamed = {call.plugin for call in self._calls("hostdev_check")} - named.keys()
        return None if unnamed else frozenset[str]().union(*named.values())

    def named_rules(self) -> dict[str, frozenset[str]]:
        """Collect the rules that each plugin names, by plugin."""
        return {
            call.plugin: refusing_rules(call(), call.plugin)
            for call in self._calls("hostdev_rules")
        }

    def before_prepare(
        self, domain: "Domain | None", devices: "Devices", called: list[str]
    ) -> None:
        """Call every plugin; stop at the first that raises. `called` gets the names of those called."""
        for call in self._calls("hostdev_before_prepare"):
            called.append(call.plugin)  # before: one that raises has perhaps done half of its work
            call(conn=self._conn, domain=domain, devices=devices)

    def after_prepare(self, domain: "Domain | None", devices: "Devices") -> None:
        """Call every plugin; stop at the first that raises."""
        for call in self._calls("hostdev_after_prepare"):
            call(conn=self._conn, domain=domain, devices=devices)

    def prepare_failed(
        self,
        domain: "Domain | None",
        devices: "Devices",
        error: BaseException,
        called: Sequence[str],
    ) -> None:
        """Call all but those whose before_prepare was not reached; their errors become notes of `error`."""
        skipped = {call.plugin for call in self._calls("hostdev_before_prepare")} - {*called}
        for call in self._calls("hostdev_prepare_failed"):
            if call.plugin not in skipped:
                try:
                    call(conn=self._conn, domain=domain, devices=devices, error=error)
                except HostdevError as problem:
                    error.add_note(str(problem))

    def before_reattach(self, domain: "Domain | None", devices: "Devices") -> list[Exception]:
        """Call every plugin; return the errors."""
        return self._all("hostdev_before_reattach", conn=self._conn, domain=domain, devices=devices)

    def after_reattach(
        self,
        domain: "Domain | None",
        devices: "Devices",
        errors: Mapping[str, Exception],
    ) -> list[Exception]:
        """Call every plugin; return the errors."""
        hook = "hostdev_after_reattach"
        return self._all(hook, conn=self._conn, domain=domain, devices=devices, errors=errors)

    def _calls(self, hook: str) -> "list[Call]":
        """List the implementations of a hook, in the order in which pluggy would call them."""
        return list_calls(self._manager, hook, self._not_called)

    def _all(self, hook: str, **arguments: object) -> list[Exception]:
        """Call every plugin, also after one that raised; return the errors."""
        errors: list[Exception] = []
        for call in self._calls(hook):
            try:
                call(**arguments)
            except HostdevError as error:
                errors.append(error)
        return errors


def list_calls(
    manager: pluggy.PluginManager, hook: str, not_called: frozenset[str]
) -> "list[Call]":
    """List the implementations of a hook in pluggy's order, without those of some plugins."""
    impls = reversed(getattr(manager.hook, hook).get_hookimpls())
    return [Call(hook, impl) for impl in impls if impl.plugin_name not in not_called]


class Call:
    """One plugin's implementation of one hook; it may take fewer arguments than its specification."""

    def __init__(self, hook: str, impl: pluggy.HookImpl) -> None:
        self.hook = hook
        self.plugin = impl.plugin_name
        self._impl = impl

    def __call__(self, **arguments: object) -> Any:
        try:
            answer: Any = self._impl.function(*(arguments[name] for name in self._impl.argnames))
            answer = list_answer(self.hook, answer)
        except VetoError:
            raise
        except KeyboardInterrupt as stop:  # a signal's: say which plugin it interrupted
            stop.add_note(f"{self.hook} of plugin {self.plugin!r} was at work")
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end the program
            raise PluginError(
                f"plugin {self.plugin}: {self.hook} raised {error!r}",
                plugin=self.plugin,
                hook=self.hook,
            ) from error
        if self.hook in GENERATOR_HOOKS:
            check_is_list(answer, self.plugin, self.hook)
        return answer


def list_answer(hook: str, answer: Any) -> Any:
    """List the answer of one of GENERATOR_HOOKS, which runs a generator; None stays None.

    A text stays a text: a list of its letters would hide from `check_is_list` that it is one.
    """
    if hook not in GENERATOR_HOOKS or answer is None or isinstance(answer, (str, bytes)):
        return answer
    return [*answer]
