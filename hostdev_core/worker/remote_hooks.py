"""Proxies in a worker for plugins that stay with its caller: their hooks are called there."""

import os
import pickle
import select
import threading
from typing import TYPE_CHECKING, Any

from hostdev_core.errors import HostdevError
from hostdev_core.hookspecs import hookimpl
from hostdev_core.runtime.signals import signals_deferred
from hostdev_core.worker.pipe import SIZE, HookCall, HookResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hostdev_core.connection import Connection
    from hostdev_core.worker.process import WorkerWriter


def call_hook(conn: "Connection", call: HookCall) -> HookResult:
    """In the caller: call a hook of a plugin of this connection for the worker."""
    try:
        value = conn.registry.call(call.plugin, call.hook, {**call.arguments, "conn": conn})
        return _checked(HookResult(call.number, value, None))
    except KeyboardInterrupt:
        raise  # it is for the caller, whose worker is told to stop
    except BaseException as error:  # the worker reports it as the plugin's
        return _checked(HookResult(call.number, None, error))


def _checked(result: HookResult) -> HookResult:
    """The result itself; one that pickle does not take becomes an error that says so."""
    try:
        pickle.loads(pickle.dumps(result))
    except Exception as reason:
        what = repr(result.error or result.value)
        return result._replace(
            value=None, error=HostdevError(f"{what:.300}, which cannot be told: {reason}")
        )
    return result


class HookClient:
    """In the worker: has hooks called by the caller, one at a time, and waits for each result."""

    def __init__(self, pipe: "WorkerWriter", reader: int) -> None:
        self._pipe = pipe
        self._reader = reader
        self._data = b""
        self._number = 0
        self._lock = threading.Lock()

    def call(self, plugin: str, hook: str, arguments: dict[str, Any]) -> object:
        """Call a plugin's hook in the caller: return its result, or raise what it raised."""
        with self._lock:
            self._number += 1
            try:
                self._pipe.send(HookCall(self._number, plugin, hook, arguments))
                result = self._read_result()
            except OSError:
                raise self._gone() from None
        if result.error is not None:
            raise result.error
        return result.value

    def _read_result(self) -> HookResult:
        """Read the result of the last call; results of earlier ones, which were given up, are dropped."""
        while True:
            select.select([self._reader], [], [])
            with signals_deferred():  # a handler that raises would lose what was read
                part = os.read(self._reader, 65536)
                self._data += part
                result = self._take_result()
            if not part:
                raise self._gone()
            if result is not None and result.number == self._number:
                return result

    def _take_result(self) -> HookResult | None:
        """Take a whole result from the bytes read; None when there is none yet."""
        if len(self._data) < SIZE.size:
            return None
        end = SIZE.size + SIZE.unpack_from(self._data)[0]
        if len(self._data) < end:
            return None
        data, self._data = self._data[SIZE.size : end], self._data[end:]
        result: HookResult = pickle.loads(data)
        return result

    def _gone(self) -> HostdevError:
        return HostdevError("the process that has this plugin waits no more")


class _RemoteHooks:
    """Every hook that is called in a worker; `_call` calls it in the caller."""

    _call: "Callable[[str, dict[str, Any]], Any]"

    @hookimpl
    def hostdev_check(self, domain: object, devices: object) -> Any:
        return self._call("hostdev_check", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_before_prepare(self, domain: object, devices: object) -> None:
        self._call("hostdev_before_prepare", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_after_prepare(self, domain: object, devices: object) -> None:
        self._call("hostdev_after_prepare", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_prepare_failed(self, domain: object, devices: object, error: object) -> None:
        arguments = {"domain": domain, "devices": devices, "error": error}
        self._call("hostdev_prepare_failed", arguments)

    @hookimpl
    def hostdev_before_reattach(self, domain: object, devices: object) -> None:
        self._call("hostdev_before_reattach", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_after_reattach(self, domain: object, devices: object, errors: object) -> None:
        arguments = {"domain": domain, "devices": devices, "errors": errors}
        self._call("hostdev_after_reattach", arguments)


def make_proxy(plugin: str, hooks: "Iterable[str]", client: HookClient) -> object:
    """Make an object whose hooks, of these names, call those of a plugin in the caller."""
    called = {hook: vars(_RemoteHooks)[hook] for hook in hooks if hook in vars(_RemoteHooks)}

    def call(hook: str, arguments: dict[str, Any]) -> object:
        return client.call(plugin, hook, arguments)

    # The plugin's own hooks only: each that the object has is a question to the caller.
    return type(f"Remote_{plugin}", (), {**called, "_call": staticmethod(call)})()
