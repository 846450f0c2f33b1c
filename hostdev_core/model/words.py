"""Words about a record: the commands that end it, and what they do."""

import shlex

from hostdev_core.model.record import Record


def way_back(record: Record) -> str:
    """The command that ends a record, whatever became of its device."""
    if record.owner is None:
        return f"hostdev device reattach {record.address}"
    return shlex.join(("hostdev", "reattach", record.owner.domain))


def ends(record: Record) -> str:
    """What to do about a record whose device is not there any more."""
    return f"`{way_back(record)}` ends its record"


def gives_back(record: Record) -> str:
    """The same about one whose device is there."""
    return f"`{way_back(record)}` gives it back"


def way_out(record: Record, doing: str | None) -> str | None:
    """What to do about a record that is in the way; `doing` is what is at work on it."""
    if doing is not None:
        return "try again when that has ended"
    return None if record.stuck else gives_back(record)


def replug_words(record: Record) -> str:
    """The same of one that is known to have come back so."""
    return (
        "it was unplugged and plugged in again: a guest that was given its number has lost it, one that"
        f" looks for its port or its ids may have it again; `{way_back(record)}`, then prepare it again"
    )
