"""Deadlines: how long the kernel, and other users of the ledger, may take."""

from typing import NamedTuple, cast

from hostdev_core.errors import InputError


class Deadlines(NamedTuple):
    """How long the kernel, and the ledger's other users, may take; seconds.

    mlx5 probes take up to 120 s, so `bind`, `reset` and `load` are generous.
    """

    unbind: float = 30.0
    bind: float = 150.0
    reset: float = 150.0
    load: float = 150.0
    attribute: float = 30.0
    ledger: float = 20.0


def checked(deadlines: Deadlines | None) -> Deadlines:
    """The deadlines, or the usual ones; InputError for one that is no number of seconds above 0."""
    given = cast("object", deadlines)
    if given is None:
        return Deadlines()
    if not isinstance(given, Deadlines):
        raise InputError(f"deadlines={given!r:.80} are none; wanted Deadlines(unbind=60)")
    for name, seconds in given._asdict().items():
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (is_number and seconds > 0):
            raise InputError(f"deadline {name}={seconds!r:.80} is no number of seconds above 0")
    return given
