"""State drivers at work: made ready once for each host, reloaded, and put away at the end."""

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
class Brought:
    """One plugin's state driver; what it raises is a PluginError that names both."""

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
        """Let it make its state ready."""
        self._ask("initialize", self.driver.initialize)

    def reload(self) -> tuple[Drift, ...]:
        """What it found."""
        answer = cast("object", self._ask("reload", self.driver.reload))
        if isinstance(answer, (tuple, list)):
            drifts = cast("Sequence[object]", answer)
            if all(isinstance(drift, Drift) for drift in drifts):
                return tuple(cast("Sequence[Drift]", drifts))
        raise self._error(f"reload answered {answer!r:.120}; wanted a tuple of Drift")

    def cleanup(self) -> None:
        """Let it put away what is only scaffolding."""
        self._ask("cleanup", self.driver.cleanup)

    def _ask(self, method: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except KeyboardInterrupt:  # a signal's
            raise
        except BaseException as error:  # sys.exit() too
            raise self._error(f"{method} raised {error!r:.200}") from error

    def _error(self, problem: str) -> PluginError:
        name = type(self.driver).__name__
        return PluginError(
            f"plugin {self.plugin}: state driver {name}: {problem}", plugin=self.plugin, hook=HOOK
        )


State = HostdevState | Brought


class StateTable(ABC):
    """The state drivers of the hosts that connections were opened on: hostdev's own and plugins'.

    Hosts with one root and one state directory are one. Safe for several threads.
    """

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, str], Host] = {}
        self._brought: dict[tuple[str, str], dict[str, list[Brought]]] = {}
        self._started: set[int] = set()
        self._starting = threading.RLock()

    @abstractmethod
    def _bringers(self, row: HostdevDriver) -> Mapping[str, Callable[..., Any]]:
        """What asks the plugins that a connection with this driver calls, with `host`, by their names."""

    def initialize(self, host: Host, row: HostdevDriver) -> None:
        """Make the state of a host ready, once; each connection does so that is not read-only.

        PluginError when a plugin's fails, which is asked again the next time. hostdev's own is the
        ledger, which the first change makes: who only looks leaves nothing behind.
        """
        key = host.root, host.state_dir
        with self._starting:
            self._hosts.setdefault(key, host)
            brought = self._brought.setdefault(key, {})
            for plugin, bring in self._bringers(row).items():
                if plugin not in brought:
                    brought[plugin] = [Brought(plugin, driver) for driver in bring(host=host) or ()]
                for each in brought[plugin]:
                    self._start(each)

    def _start(self, each: Brought) -> None:
        if id(each) not in self._started:
            self._started.add(id(each))  # before: it may open a connection itself
            try:
                each.initialize()
            except BaseException:
                self._started.discard(id(each))
                raise

    def reload(self, host: Host | None = None) -> tuple[Drift, ...]:
        """Compare the state with the world: of one host, or of all that were opened; what drifted.

        Every state driver is asked. Raises what hostdev's own raises, or PluginError.
        """
        return _drifts(self._at(host, [] if host is None else [HostdevState(host)]))

    def reload_brought(self, host: Host) -> tuple[Drift, ...]:
        """The same for what plugins brought alone."""
        return _drifts(self._at(host, []))

    def close(self) -> None:
        """Put away what is only scaffolding, of every host, last begun first; twice is harmless.

        Devices stay with their domains, and open connections open. The next one that is opened makes
        the state ready anew. Every state driver is asked; raises as `reload`.
        """
        with self._starting:
            states = self._at(None, [])
            self._hosts.clear()
            self._brought.clear()
            self._started.clear()
        _each(each.cleanup for each in reversed(states))

    def __enter__(self: "Table") -> "Table":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _at(self, host: Host | None, own: list[State]) -> list[State]:
        """Those of all hosts; of one host: `own`, and what was brought for it and is ready."""
        with self._starting:
            if host is not None:
                return [*own, *self._ready((host.root, host.state_dir))]
            states: list[State] = []
            for key, each in self._hosts.items():
                states += [HostdevState(each), *self._ready(key)]
            return states

    def _ready(self, key: tuple[str, str]) -> list[Brought]:
        every = [each for brought in self._brought.get(key, {}).values() for each in brought]
        return [each for each in every if id(each) in self._started]


def _drifts(states: Iterable[State]) -> tuple[Drift, ...]:
    found: list[Drift] = []

    def ask(state: State) -> None:
        found.extend(state.reload())

    _each(partial(ask, state) for state in states)
    return tuple(found)


def _each(calls: Iterable[Callable[[], object]]) -> None:
    """Make all these calls; the first error, with the others as notes, when all had their turn."""
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


def put_away(table: StateTable) -> None:
    """Close a registry that nobody else has; what is raised is logged: all that was asked for is done."""
    try:
        table.close()
    except HostdevError as error:
        log.error("%s", error)


def reloading(recover: Callable[[], Returned], reload: Callable[[], object]) -> Returned:
    """What a recovery brought home, with the state reloaded, however it ended.

    What keeps no device away does not hide what is home: ReattachError says both.
    """
    failed: ReattachError | None = None
    try:
        home = recover()
    except ReattachError as error:
        failed, home = error, Returned.of(error.returned)
    try:
        reload()
    except PluginError as problem:
        parts = (*(failed.exceptions if failed else ()), problem)
        message = failed.message if failed else "given back, but a plugin failed"
        failed = ReattachError(message, parts)
        failed.returned = home
    if failed is not None:
        raise failed
    return home
