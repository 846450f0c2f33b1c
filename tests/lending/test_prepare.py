"""Ctrl-C between two steps of hostdev's own: the ledger is free, and all is undone, or said to be done."""

from collections.abc import Generator
from itertools import count
from types import FrameType

import pytest

from hostdev_core import Connection, Deadlines, Domain, Registry, open_connection
from hostdev_core.errors import WAS_DONE
from hostdev_core.simulated import SimulatedHost
from tests.helpers.interrupts import Where, interrupted
from tests.sample import DISK, NIC


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
