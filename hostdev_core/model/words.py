"""Words about a record: the commands that end it, and what they do."""

import shlex
from collections.abc import Sequence

from hostdev_core.model.record import Record


def way_back(record: Record) -> str:
    """The command that ends a record, whether or not its device is there."""
    if record.owner is None:
        return f"hostdev device reattach {record.address}"
    return shlex.join(("hostdev", "reattach", *arguments([record.owner.domain])))


def arguments(names: Sequence[str], options: Sequence[str] = ()) -> tuple[str, ...]:
    """The words of a command line after the command; names that look like options stand behind "--"."""
    if any(name.startswith("-") for name in names):
        return (*options, "--", *names)
    return (*names, *options)


def option(name: str, value: str) -> tuple[str, ...]:
    """An option with its value as words of a command line; the value may look like an option."""
    return (f"{name}={value}",) if value.startswith("-") else (name, value)


def ends(record: Record) -> str:
    """The advice about a record whose device is not there any more."""
    return f"`{way_back(record)}` ends its record"


def gives_back(record: Record) -> str:
    """The advice about a record whose device is there."""
    return f"`{way_back(record)}` gives it back"


def way_out(record: Record, doing: str | None) -> str | None:
    """The advice about a record that is in the way; `doing` describes the operation at work on it."""
    if doing is not None:
        return "try again when that has ended"
    return None if record.stuck else gives_back(record)


def replug_words(record: Record) -> str:
    """The advice about a record whose USB device came back under another number."""
    return (
        "it was unplugged and plugged in again: a guest that was given its number has lost it, one that"
        f" looks for its port or its ids may have it again; `{way_back(record)}`, then prepare it again"
    )
