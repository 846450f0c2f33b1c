"""Ctrl-C between two steps of hostdev's own: the ledger is free, and all is undone, or said to be done."""

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any

import pytest

from hostdev_core import Connection, Deadlines, Domain, Registry, open_connection
from hostdev_core.errors import WAS_DONE
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC

Where = Callable[[FrameType], bool]


@contextmanager
def interrupted(moment: int, where: Where) -> Generator[list[int]]:
    """SIGINT at this line, counted over all of some functions; what is given is full when it came."""
    lines, came = count(1), list[int]()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not where(frame):
            return trace if frame.f_code.co_filename.endswith("contextlib.py") else None
        if event == "line" and next(lines) == moment:
            came.append(moment)
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield came
    finally:
        sys.settrace(before)


def around_a_transaction(frame: FrameType) -> bool:
    """Where one is entered or left."""
    generator = getattr(frame.f_locals.get("self"), "gen", None)
    name = frame.f_code.co_name
    return name in {"__enter__", "__exit__"} and getattr(generator, "__name__", "") == "transaction"


def at_the_end_of_an_operation(frame: FrameType) -> bool:
    return frame.f_code.co_name == "release"


@pytest.fixture
def hasty(host: SimulatedHost, registry: Registry) -> Generator[Connection]:
    deadlines = Deadlines(ledger=2.0)
    with open_connection(
        "qemu:///system", host=host, registry=registry, deadlines=deadlines
    ) as conn:
        yield conn


@pytest.mark.parametrize(
    ("where", "least"), [(around_a_transaction, 12), (at_the_end_of_an_operation, 6)]
)
def test_a_prepare_is_undone_or_said_to_be_done(
    host: SimulatedHost, hasty: Connection, where: Where, least: int
) -> None:
    before, said = host.snapshot(), 0
    for moment in count(1):
        kept = None
        try:
            with interrupted(moment, where) as came:
                hasty.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        except KeyboardInterrupt as error:
            kept = error  # and with it, what its traceback holds
        is_done = kept is None or WAS_DONE in getattr(kept, "__notes__", ())
        said += is_done and kept is not None
        assert [record.is_lent for record in host.ledger.records()] == [True] * 2 * is_done
        hasty.reattach_hostdevs("vm1")
        assert host.snapshot() == before
        assert host.ledger.records() == []
        if not came:
            break
        assert kept is not None
    assert moment > least
    assert bool(said) == (where is at_the_end_of_an_operation)
