"""A call of a driver is all or nothing, where the driver's own part of it fails at the end, too."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TypeVar


class Done(Protocol):
    """What was done in a call, and can be taken back while that has not ended."""

    def take_back(self, error: BaseException) -> None:
        """Undo it, for this error; what fails becomes a note of that, and raises nothing."""
        ...


class _Call(NamedTuple):
    """A call of a driver that is under way in this thread, and what was done in it so far."""

    conn: object
    done: list[Done]


_call: ContextVar[_Call | None] = ContextVar("hostdev_call", default=None)


def note(done: Done) -> None:
    """Something was done in the call of a driver that is under way in this thread, if one is."""
    call = _call.get()
    if call is not None:
        call.done.append(done)


@contextmanager
def as_a_whole(conn: object) -> Generator[None]:
    """A call in which what was done is taken back when it raises, last first.

    A driver's method may call those that it overrides, once or several times: they are parts of it.
    """
    outer = _call.get()
    if outer is not None and outer.conn is conn:
        yield
        return
    with _set(_Call(conn, [])) as call:
        try:
            yield
        except BaseException as error:
            for done in reversed(call.done):
                done.take_back(error)
            raise


@contextmanager
def apart() -> Generator[None]:
    """A call that somebody makes in another one, as a hook may: it stays done whatever becomes of that."""
    with _set(None):
        yield


Value = TypeVar("Value", _Call, None)


@contextmanager
def _set(value: Value) -> Generator[Value]:
    token = _call.set(value)
    try:
        yield value
    finally:
        _call.reset(token)
