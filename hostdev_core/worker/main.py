"""The new interpreter's side: it makes the connection again, and the call."""

import logging
import os
import pickle
from typing import Any, NoReturn

from hostdev_core import __version__
from hostdev_core.connection import Connection
from hostdev_core.driver import OpenResult
from hostdev_core.errors import OpenError, StateError
from hostdev_core.registry.registry import Registry
from hostdev_core.worker.call_data import Errand
from hostdev_core.worker.process import Mouth, put_null, work
from hostdev_core.worker.remote_hooks import Line, make_standin


def main(version: str, data: int, given: list[int]) -> NoReturn:
    """Do the errand whose bytes this descriptor has; what is said goes to the first of the others.

    It is of a process that has this version of hostdev.
    """
    put_null({0, 1, 2})
    mouth = Mouth(given[0])
    work(lambda: _do(version, data, mouth, given[1:]), mouth)


def _do(version: str, data: int, mouth: Mouth, readers: list[int]) -> object:
    if version != __version__:
        raise StateError(
            f"this process runs hostdev {version}, and {__version__} is installed now; nothing was"
            " changed. Start it again"
        )
    try:
        with open(data, "rb") as file:
            file.seek(0)
            errand: Errand = pickle.load(file)
        for name, level in errand.levels.items():
            logging.getLogger(name).setLevel(level)
        conn = Again(errand, _registry(errand, Line(mouth, readers[0]) if readers else None))
    except Exception as error:
        raise StateError(
            f"the worker (pid {os.getpid()}) cannot make the call: {type(error).__name__}: {error};"
            " nothing was changed"
        ) from error
    method: Any = getattr(Connection, errand.method).__wrapped__
    return method(conn, *errand.arguments, **errand.keywords)


def _registry(errand: Errand, line: Line | None) -> Registry:
    registry = Registry()
    for name, packed, hooks in errand.plugins:
        if packed is not None:
            registry.register(pickle.loads(packed), name=name)
        elif line is not None:
            registry.register(make_standin(name, hooks, line), name=name)
    return registry


class Again(Connection):
    """A connection of another process; nobody is told that it opens, or ends, here."""

    def __init__(self, errand: Errand, registry: Registry) -> None:
        self._errand = errand
        super().__init__(errand.uri, errand.host, registry)

    def _open(self) -> None:
        driver = self.registry.driver_table.find(self._errand.driver)
        if driver is None:
            raise OpenError(
                f"there is no driver {self._errand.driver!r} here",
                driver=self._errand.driver,
                uri=self.uri,
            )
        self.hooks = self.registry.hooks_for(driver)
        self.hostdev_driver = driver
        if self._errand.private is not None:
            self.hostdev_private_data = pickle.loads(self._errand.private)
        elif driver.open(self) is not OpenResult.SUCCESS:
            raise OpenError(
                f"driver {driver.name} declined {self.uri} in the worker",
                driver=driver.name,
                uri=self.uri,
            )

    def _end(self) -> None:
        """What hangs on it is its owner's."""
