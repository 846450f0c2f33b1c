"""A call as data, for a process that was not forked from this one.

Modules, classes and functions go by their names, hosts by their directory, all else as pickle takes
it. What is defined in the script itself (`__main__`) stays here: to import that would run it again.
"""

import importlib
import io
import logging
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hostdev_core.errors import StateError
from hostdev_core.host import Deadlines, Host
from hostdev_core.registry.registry import Registry

if TYPE_CHECKING:
    from hostdev_core.connection import Connection

SCRIPTS = {"__main__", "__mp_main__"}


class Plugin(NamedTuple):
    """A plugin by its name: packed, or the hooks of one that stays where it is."""

    name: str
    packed: bytes | None
    hooks: tuple[str, ...]


class Errand(NamedTuple):
    """A call of a method of a connection, and what it takes to have that connection elsewhere.

    `private` is the driver's own data, packed, None where it cannot be. `levels` are the loggers'.
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
    def has_absent(self) -> bool:
        """Whether a plugin stays behind, and is asked there."""
        return any(plugin.packed is None for plugin in self.plugins)


def make_errand(
    conn: "Connection", method: str, arguments: tuple[object, ...], keywords: dict[str, object]
) -> Errand:
    """The errand for a call; StateError, with the reason, for one that cannot be made elsewhere."""
    driver = conn.hostdev_driver
    errand = Errand(
        method,
        arguments,
        keywords,
        conn.uri,
        conn.host,
        driver.name if driver else "",
        _try_to_pack(conn.hostdev_private_data)[0],
        tuple(_plugins(conn.registry)),
        _levels(),
    )
    packed, reason = _try_to_pack((arguments, keywords, conn.host))
    if packed is None:
        raise _stays(f"{method} and its host", reason)
    return errand


def _plugins(registry: Registry) -> "list[Plugin]":
    found: list[Plugin] = []
    for name, plugin in registry.plugins.items():
        packed, reason = _try_to_pack(plugin)
        if packed is None and any(
            registry.driver_table.plugin_of(r) == name for r in registry.driver_table
        ):
            raise _stays(f"plugin {name!r}, which brings a driver,", reason)
        found.append(Plugin(name, packed, registry.hooks_of(name)))
    return found


def _stays(what: str, reason: str) -> StateError:
    return StateError(
        f"{what} cannot be handed to the worker: {reason}; nothing was changed. This process has several"
        " threads, so that its worker is a new process, which gets the call as data: register a module,"
        " or an object that pickle takes (nothing of the script itself), or open the connection without"
        " worker=True"
    )


def _levels() -> dict[str, int]:
    levels = {"": logging.root.level}
    for name, logger in [*logging.root.manager.loggerDict.items()]:
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels


def _try_to_pack(value: object) -> tuple[bytes | None, str]:
    """The bytes, or why there are none."""
    try:
        return pack(value), ""
    except Exception as error:  # whatever a foreign __reduce__ raises
        return None, f"{error!s:.300}" or type(error).__name__


def pack(value: object) -> bytes:
    """Bytes that `pickle.loads` makes the same of, in a process with the same sys.path."""
    file = io.BytesIO()
    _Packer(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


class _Packer(pickle.Pickler):
    def reducer_override(self, obj: object, /) -> Any:
        if isinstance(obj, types.ModuleType):
            _check_importable(obj.__name__, obj)
            return importlib.import_module, (obj.__name__,)
        if isinstance(obj, Host) and type(obj).__module__.startswith("hostdev_core."):
            user = getattr(obj, "user", None)  # of a simulated one
            return _host_again, (type(obj), obj.root, obj.state_dir, obj.deadlines, user)
        if isinstance(obj, (type, types.FunctionType)):
            _check_importable(obj.__module__, sys.modules.get(obj.__module__))
        return NotImplemented


def _host_again(
    kind: type[Host], root: str, state_dir: str, deadlines: Deadlines, user: int | None
) -> Host:
    host = kind(root, deadlines=deadlines)
    host.state_dir = state_dir
    if user is not None:
        cast("Any", host).become(user)
    return host


def _check_importable(name: str, module: types.ModuleType | None) -> None:
    if name in SCRIPTS:
        raise pickle.PicklingError("it is of the script itself, which nobody imports")
    if sys.modules.get(name) is not module or getattr(module, "__spec__", None) is None:
        raise pickle.PicklingError(f"there is no module {name} to import")
