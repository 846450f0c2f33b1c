"""Ctrl-C between two steps of the ledger's own: it is never left locked."""

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any

import pytest

from hostdev_core import Deadlines, Domain, Registry, open_connection
from hostdev_core.simulated import SimulatedHost
from tests.flow.workers import DISK, NIC

STEPS = {"__enter__", "__exit__"}


@contextmanager
def interrupted(moment: int) -> Generator[None]:
    """SIGINT at this line, counted over all in which a transaction is entered or left."""
    lines = count(1)

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_name not in STEPS:
            return trace if frame.f_code.co_filename.endswith("contextlib.py") else None
        generator = getattr(frame.f_locals.get("self"), "gen", None)
        inside = getattr(generator, "__name__", "") == "transaction" and event == "line"
        if inside and next(lines) == moment:
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("moment", range(1, 40))
def test_the_ledger_is_free_after_an_interrupt(
    host: SimulatedHost, registry: Registry, moment: int
) -> None:
    before, kept = host.snapshot(), None
    hasty = Deadlines(ledger=2.0)
    with open_connection("qemu:///system", host=host, registry=registry, deadlines=hasty) as conn:
        try:
            with interrupted(moment):
                conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        except KeyboardInterrupt as error:
            kept = error  # and with it, what its traceback holds
        if kept is None:
            conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before
        assert host.ledger.records() == []
