"""Pickle a call for a process that was not forked from this one.

Modules, classes and functions go by their names, hosts by their directory, all else as pickle takes
it. Definitions of the script itself (`__main__`) stay here: to import that would run it again.
"""

import importlib
import io
import logging
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.registry.registry import Registry
from hostdev_core.runtime.deadlines import Deadlines

if TYPE_CHECKING:
    from hostdev_core.connection import Connection

SCRIPTS = {"__main__", "__mp_main__"}


class Plugin(NamedTuple):
    """A plugin and its name: pickled, or None for one that stays here; its hooks are called here then."""

    name: str
    pickled: bytes | None
    hooks: tuple[str, ...]


class CallData(NamedTuple):
    """A call of a connection's method, with all that makes the same connection in another process.

    `private` is the driver's own data, pickled, None where it cannot be. `levels` are the loggers'.
    """

    method: str
    arguments: tuple[object, ...]
    keywords: dict[str, object]
    uri: str
    host: Host
    driver: str
    private: bytes | None
    plugins: tuple[Plugin, ...]
    levels: dict[str, int]

    @property
    def needs_caller(self) -> bool:
        """Whether a plugin stays with the caller, which calls its hooks for the worker."""
        return any(plugin.pickled is None for plugin in self.plugins)


def make_call_data(
    conn: "Connection", method: str, arguments: tuple[object, ...], keywords: dict[str, object]
) -> CallData:
    """Describe a call; StateError, with the reason, for one that cannot be made elsewhere."""
    driver = conn.hostdev_driver
    call = CallData(
        method,
        arguments,
        keywords,
        conn.uri,
        conn.host,
        driver.name if driver else "",
        _try_to_pickle(conn.hostdev_private_data)[0],
        tuple(_plugins(conn.registry)),
        _logger_levels(),
    )
    # Tried part by part, so that the error names the one that pickle does not take.
    data, reason = _try_to_pickle((arguments, keywords, conn.host))
    if data is None:
        raise _not_picklable(f"{method} and its host", reason)
    return call


def _plugins(registry: Registry) -> "list[Plugin]":
    """Pickle the plugins; StateError when one that brings a driver cannot be: hooks alone can stay."""
    found: list[Plugin] = []
    for name, plugin in registry.plugins.items():
        data, reason = _try_to_pickle(plugin)
        if data is None and any(
            registry.driver_table.plugin_of(r) == name for r in registry.driver_table
        ):
            raise _not_picklable(f"plugin {name!r}, which brings a driver,", reason)
        found.append(Plugin(name, data, registry.hooks_of(name)))
    return found


def _not_picklable(what: str, reason: str) -> StateError:
    return StateError(
        f"{what} cannot be handed to the worker: {reason}; nothing was changed. This process has several"
        " threads, so that its worker is a new process, which gets the call as data: register a module,"
        " or an object that pickle takes (nothing of the script itself), or open the connection without"
        " worker=True"
    )


def _logger_levels() -> dict[str, int]:
    levels = {"": logging.root.level}
    for name, logger in [*logging.root.manager.loggerDict.items()]:
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels


def _try_to_pickle(value: object) -> tuple[bytes | None, str]:
    """Pickle a value; None, and the reason, when that fails."""
    try:
        return to_pickle(value), ""
    except Exception as error:  # whatever a foreign __reduce__ raises
        return None, f"{error!s:.300}" or type(error).__name__


def to_pickle(value: object) -> bytes:
    """Pickle a value for a process with the same sys.path, where `pickle.loads` makes the same of it."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object, /) -> Any:
        if isinstance(obj, types.ModuleType):
            _check_importable(obj.__name__, obj)
            return importlib.import_module, (obj.__name__,)
        if isinstance(obj, Host) and type(obj).__module__.startswith("hostdev_core."):
            user = getattr(obj, "user", None)  # of a simulated one
            return _make_host, (type(obj), obj.root, obj.state_dir, obj.deadlines, user)
        if isinstance(obj, (type, types.FunctionType)):
            _check_importable(obj.__module__, sys.modules.get(obj.__module__))
        return NotImplemented


def _make_host(
    kind: type[Host], root: str, state_dir: str, deadlines: Deadlines, user: int | None
) -> Host:
    host = kind(root, deadlines=deadlines)
    host.state_dir = state_dir
    if user is not None:
        cast("Any", host).become(user)
    return host


def _check_importable(name: str, module: types.ModuleType | None) -> None:
    """Raise PicklingError unless an import of `name` gives this module in a new interpreter, too."""
    if name in SCRIPTS:
        raise pickle.PicklingError("it is of the script itself, which nobody imports")
    if sys.modules.get(name) is not module or getattr(module, "__spec__", None) is None:
        raise pickle.PicklingError(f"there is no module {name} to import")
