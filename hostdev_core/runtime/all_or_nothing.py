"""Make a driver's call all or nothing, also where the driver's own part of it fails at the end."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TypeVar


class Change(Protocol):
    """A change made in a call, which can be taken back until the call has ended."""

    def take_back(self, error: BaseException) -> None:
        """Undo it because of this error; a failure of the undo becomes a note of the error."""
        ...


class _Call(NamedTuple):
    """A call of a driver that is under way in this thread, and the changes made in it so far."""

    conn: object
    changes: list[Change]


# Not an argument: a backend calls the method that it overrides by super(), with the public arguments only.
_call: ContextVar[_Call | None] = ContextVar("hostdev_call", default=None)


def add_change(change: Change) -> None:
    """Add a change to the driver's call that is under way in this thread, if one is."""
    call = _call.get()
    if call is not None:
        call.changes.append(change)


@contextmanager
def all_or_nothing(conn: object) -> Generator[None]:
    """Take back the changes made in the block when it raises, the last one first.

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
            for change in reversed(call.changes):
                change.take_back(error)
            raise


@contextmanager
def separate_call() -> Generator[None]:
    """Make the block no part of the call around it: a hook's own call stays done if that one fails."""
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
