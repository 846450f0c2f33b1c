"""Calls of state drivers: initialized once for each host, reloaded, and cleaned up at the end."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import attrs

from hostdev_core.driver import HostdevDriver
from hostdev_core.errors import HostdevError, PluginError, ReattachError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import Drift
from hostdev_core.inventory.state import HostdevState, StateDriver
from hostdev_core.model.assignment import Returned

HOOK = "hostdev_state_drivers"
T = TypeVar("T")
Table = TypeVar("Table", bound="StateTable")
log = logging.getLogger("hostdev")


@attrs.define(eq=False)
class PluginStateDriver:
    """One plugin's state driver; its exceptions become PluginErrors that name both."""

    plugin: str
    driver: StateDriver

    def __attrs_post_init__(self) -> None:
        if not isinstance(cast("object", self.driver), StateDriver):
            raise PluginError(
                f"plugin {self.plugin} brings {self.driver!r:.80}, which is no StateDriver",
                plugin=self.plugin,
                hook=HOOK,
            )

    def initialize(self) -> None:
        """Call the state driver's `initialize`."""
        self._ask("initialize", self.driver.initialize)

    def reload(self) -> tuple[Drift, ...]:
        """Call its `reload`; PluginError for an answer that is not a tuple or list of Drift."""
        answer = cast("object", self._ask("reload", self.driver.reload))
        if isinstance(answer, (tuple, list)):
            drifts = cast("Sequence[object]", answer)
            if all(isinstance(drift, Drift) for drift in drifts):
                return tuple(cast("Sequence[Drift]", drifts))
        raise self._error(f"reload answered {answer!r:.120}; wanted a tuple of Drift")

    def cleanup(self) -> None:
        """Call its `cleanup`."""
        self._ask("cleanup", self.driver.cleanup)

    def _ask(self, method: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except KeyboardInterrupt:  # a signal's
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end the program
            raise self._error(f"{method} raised {error!r:.200}") from error

    def _error(self, problem: str) -> PluginError:
        name = type(self.driver).__name__
        return PluginError(
            f"plugin {self.plugin}: state driver {name}: {problem}", plugin=self.plugin, hook=HOOK
        )


State = HostdevState | PluginStateDriver
_HostKey = tuple[str, str]  # root and state directory


class StateTable(ABC):
    """The state drivers of the hosts that connections were opened on: hostdev's own and plugins'.

    Hosts with the same root and state directory are one. Safe for several threads.
    """

    def __init__(self) -> None:
        self._hosts: dict[_HostKey, Host] = {}
        self._from_plugins: dict[_HostKey, dict[str, list[PluginStateDriver]]] = {}
        self._started: set[int] = set()
        self._lock = threading.RLock()  # reentrant: `initialize` of a plugin may open a connection

    @abstractmethod
    def _state_driver_hooks(self, driver: HostdevDriver) -> Mapping[str, Callable[..., Any]]:
        """The hostdev_state_drivers that a connection with this driver calls, with `host`, by plugin."""

    def initialize(self, host: Host, row: HostdevDriver) -> None:
        """Initialize the plugins' state drivers for a host, once; each connection that may write calls this.

        PluginError when one fails, which is initialized again the next time. hostdev's own state is the
        ledger, which the first change makes: a connection that only reads leaves nothing behind.
        """
        key = host.root, host.state_dir
        with self._lock:
            self._hosts.setdefault(key, host)
            by_plugin = self._from_plugins.setdefault(key, {})
            for plugin, hook in self._state_driver_hooks(row).items():
                if plugin not in by_plugin:
                    answer = hook(host=host) or ()  # None: a plugin without state for this host
                    by_plugin[plugin] = [PluginStateDriver(plugin, driver) for driver in answer]
                for state in by_plugin[plugin]:
                    self._start(state)

    def _start(self, state: PluginStateDriver) -> None:
        if id(state) not in self._started:
            self._started.add(id(state))  # before: it may open a connection itself
            try:
                state.initialize()
            except BaseException:
                self._started.discard(id(state))
                raise

    def reload(self, host: Host | None = None) -> tuple[Drift, ...]:
        """Compare the state with the machine, of one host or of all that were opened; return what drifted.

        Every state driver is asked. Raises as hostdev's own does, or PluginError.
        """
        return _drifts(self._states(host, [] if host is None else [HostdevState(host)]))

    def reload_brought(self, host: Host) -> tuple[Drift, ...]:
        """Compare the state of plugins alone with the machine; return what drifted. Raises as `reload`."""
        return _drifts(self._states(host, []))

    def close(self) -> None:
        """Let the state drivers of every host clean up, last initialized first; a second call does nothing.

        Devices stay with their domains, and open connections open. The next connection that is opened
        initializes the state anew. Every state driver is asked; raises as `reload`.
        """
        with self._lock:
            states = self._states(None, [])
            self._hosts.clear()
            self._from_plugins.clear()
            self._started.clear()
        # Without the lock: a plugin that takes its time keeps no other thread from opening a connection.
        _call_all(state.cleanup for state in reversed(states))

    def __enter__(self: "Table") -> "Table":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _states(self, host: Host | None, own: list[State]) -> list[State]:
        """List the states of all hosts; of one host: `own`, and those of plugins that are initialized."""
        with self._lock:
            if host is not None:
                return [*own, *self._initialized((host.root, host.state_dir))]
            states: list[State] = []
            for key, opened in self._hosts.items():
                states += [HostdevState(opened), *self._initialized(key)]
            return states

    def _initialized(self, key: _HostKey) -> list[PluginStateDriver]:
        by_plugin = self._from_plugins.get(key, {})
        states = [state for of_plugin in by_plugin.values() for state in of_plugin]
        return [state for state in states if id(state) in self._started]


def _drifts(states: Iterable[State]) -> tuple[Drift, ...]:
    found: list[Drift] = []

    def ask(state: State) -> None:
        found.extend(state.reload())

    _call_all(partial(ask, state) for state in states)
    return tuple(found)


def _call_all(calls: Iterable[Callable[[], object]]) -> None:
    """Make all these calls; then raise the first error, with the others as its notes."""
    errors: list[HostdevError] = []
    for call in calls:
        try:
            call()
        except HostdevError as error:
            errors.append(error)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]


def close_quietly(table: StateTable) -> None:
    """Close a connection's own registry. An error is logged only: the connection's work is done."""
    try:
        table.close()
    except HostdevError as error:
        log.error("%s", error)


def recover_and_reload(recover: Callable[[], Returned], reload: Callable[[], object]) -> Returned:
    """Call `recover`, then `reload`, also after a ReattachError; return the devices that were restored.

    A plugin's error in `reload` keeps no device from the host, so it must not hide those that were given
    back: one ReattachError carries both.
    """
    failed: ReattachError | None = None
    try:
        returned = recover()
    except ReattachError as error:
        failed, returned = error, Returned.of(error.returned)
    try:
        reload()
    except PluginError as problem:
        parts = (*(failed.exceptions if failed else ()), problem)
        message = failed.message if failed else "given back, but a plugin failed"
        failed = ReattachError(message, parts)
        failed.returned = returned
    if failed is not None:
        raise failed
    return returned
