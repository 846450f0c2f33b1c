"""The main program of a worker's new interpreter: it opens the same connection and makes the call."""

import logging
import os
import pickle
from typing import Any, NoReturn

from hostdev_core import __version__
from hostdev_core.connection import Connection
from hostdev_core.driver import OpenResult
from hostdev_core.errors import OpenError, StateError
from hostdev_core.registry.registry import Registry
from hostdev_core.worker.call_data import CallData
from hostdev_core.worker.process import WorkerWriter, replace_with_null, run_and_exit
from hostdev_core.worker.remote_hooks import HookClient, make_proxy


def main(version: str, data: int, fds: list[int]) -> NoReturn:
    """Make the call whose CallData the descriptor `data` has, and send messages to the first of `fds`.

    Its second one, where there is one, is that of hooks' results. `version` is the caller's hostdev.
    """
    replace_with_null({0, 1, 2})
    pipe = WorkerWriter(fds[0])
    run_and_exit(lambda: _make_call(version, data, pipe, fds[1:]), pipe)


def _make_call(version: str, data: int, pipe: WorkerWriter, readers: list[int]) -> object:
    # An upgrade while the caller ran: its pickles may be of other classes than those installed now.
    if version != __version__:
        raise StateError(
            f"this process runs hostdev {version}, and {__version__} is installed now; nothing was"
            " changed. Start it again"
        )
    try:
        with open(data, "rb") as file:
            file.seek(0)
            call: CallData = pickle.load(file)
        for name, level in call.levels.items():
            logging.getLogger(name).setLevel(level)
        client = HookClient(pipe, readers[0]) if readers else None
        conn = WorkerConnection(call, _registry(call, client))
    except Exception as error:
        raise StateError(
            f"the worker (pid {os.getpid()}) cannot make the call: {type(error).__name__}: {error};"
            " nothing was changed"
        ) from error
    # The method itself, without the decorators that would start another worker for it.
    method: Any = getattr(Connection, call.method).__wrapped__
    return method(conn, *call.arguments, **call.keywords)


def _registry(call: CallData, client: HookClient | None) -> Registry:
    """Register the call's plugins, and proxies for those that stay with the caller."""
    registry = Registry()
    for name, pickled, hooks in call.plugins:
        if pickled is not None:
            registry.register(pickle.loads(pickled), name=name)
        elif client is not None:
            registry.register(make_proxy(name, hooks, client), name=name)
    return registry


class WorkerConnection(Connection):
    """The caller's connection, in the worker: no hook is told that it is opened or closed here."""

    def __init__(self, call: CallData, registry: Registry) -> None:
        self._call = call
        super().__init__(call.uri, call.host, registry)

    def _open(self) -> None:
        driver = self.registry.driver_table.find(self._call.driver)
        if driver is None:
            raise OpenError(
                f"there is no driver {self._call.driver!r} here",
                driver=self._call.driver,
                uri=self.uri,
            )
        self.hooks = self.registry.hooks_for(driver, self)
        self.hostdev_driver = driver
        if self._call.private is not None:
            self.hostdev_private_data = pickle.loads(self._call.private)
        elif driver.open(self) is not OpenResult.SUCCESS:
            raise OpenError(
                f"driver {driver.name} declined {self.uri} in the worker",
                driver=driver.name,
                uri=self.uri,
            )

    def _end(self) -> None:
        """Close nothing: the connection is the caller's, which closes it."""
