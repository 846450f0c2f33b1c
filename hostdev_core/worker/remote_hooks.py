"""Stand-ins in a worker for plugins that stayed with its caller: their hooks are called there."""

import os
import pickle
import select
import threading
from typing import TYPE_CHECKING, Any

from hostdev_core.errors import HostdevError
from hostdev_core.hookspecs import hookimpl
from hostdev_core.runtime.signals import held_back
from hostdev_core.worker.pipe import SIZE, Ask, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hostdev_core.connection import Connection
    from hostdev_core.worker.process import Mouth


def serve(conn: "Connection", ask: Ask) -> Reply:
    """At the caller: call a hook that the worker asks for."""
    try:
        answer = conn.registry.call(ask.plugin, ask.hook, {**ask.arguments, "conn": conn})
        return _checked(Reply(ask.number, answer, None))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the worker tells it as a plugin's
        return _checked(Reply(ask.number, None, error))


def _checked(reply: Reply) -> Reply:
    try:
        pickle.loads(pickle.dumps(reply))
    except Exception as reason:
        what = repr(reply.error or reply.value)
        return reply._replace(
            value=None, error=HostdevError(f"{what:.300}, which cannot be told: {reason}")
        )
    return reply


class Line:
    """The worker's way to ask its caller."""

    def __init__(self, mouth: "Mouth", reader: int) -> None:
        self._mouth = mouth
        self._reader = reader
        self._heard = b""
        self._number = 0
        self._lock = threading.Lock()

    def ask(self, plugin: str, hook: str, arguments: dict[str, Any]) -> object:
        """What the plugin's hook answers, or raises."""
        with self._lock:
            self._number += 1
            try:
                self._mouth.say(Ask(self._number, plugin, hook, arguments))
                reply = self._reply()
            except OSError:
                raise self._gone() from None
        if reply.error is not None:
            raise reply.error
        return reply.value

    def _reply(self) -> Reply:
        """The answer to what was asked last; nobody waits for one to something before."""
        while True:
            select.select([self._reader], [], [])
            with held_back():
                part = os.read(self._reader, 65536)
                self._heard += part
                reply = self._take()
            if not part:
                raise self._gone()
            if reply is not None and reply.number == self._number:
                return reply

    def _take(self) -> Reply | None:
        if len(self._heard) < SIZE.size:
            return None
        end = SIZE.size + SIZE.unpack_from(self._heard)[0]
        if len(self._heard) < end:
            return None
        data, self._heard = self._heard[SIZE.size : end], self._heard[end:]
        reply: Reply = pickle.loads(data)
        return reply

    def _gone(self) -> HostdevError:
        return HostdevError("the process that has this plugin waits no more")


class _Hooks:
    """Every hook that is called in a worker; `_ask` calls it where the plugin is."""

    _ask: "Callable[[str, dict[str, Any]], Any]"

    @hookimpl
    def hostdev_check(self, domain: object, devices: object) -> Any:
        return self._ask("hostdev_check", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_before_prepare(self, domain: object, devices: object) -> None:
        self._ask("hostdev_before_prepare", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_after_prepare(self, domain: object, devices: object) -> None:
        self._ask("hostdev_after_prepare", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_prepare_failed(self, domain: object, devices: object, error: object) -> None:
        words = {"domain": domain, "devices": devices, "error": error}
        self._ask("hostdev_prepare_failed", words)

    @hookimpl
    def hostdev_before_reattach(self, domain: object, devices: object) -> None:
        self._ask("hostdev_before_reattach", {"domain": domain, "devices": devices})

    @hookimpl
    def hostdev_after_reattach(self, domain: object, devices: object, errors: object) -> None:
        words = {"domain": domain, "devices": devices, "errors": errors}
        self._ask("hostdev_after_reattach", words)


def make_standin(plugin: str, hooks: "Iterable[str]", line: Line) -> object:
    """An object with these hooks of a plugin."""
    called = {hook: vars(_Hooks)[hook] for hook in hooks if hook in vars(_Hooks)}

    def ask(hook: str, arguments: dict[str, Any]) -> object:
        return line.ask(plugin, hook, arguments)

    return type(f"StandIn_{plugin}", (), {**called, "_ask": staticmethod(ask)})()
