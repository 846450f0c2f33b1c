"""Each look of a call fails once: the answer is right, refused without a trace, or stuck with the reason."""

import errno
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    Domain,
    HostdevError,
    PrepareFlags,
    Registry,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.half_seen import FAILURES, PF, STICK, VF, in_words, make_machine
from tests.helpers.looks import Nth
from tests.sample import GPU, NIC

SETUPS: dict[str, Callable[[Connection], object]] = {
    "nothing lent": lambda conn: None,
    "lent": lambda conn: conn.prepare_hostdevs(Domain("vm1", [NIC])),
    "stick lent": lambda conn: conn.prepare_hostdevs(Domain("vm1", [STICK])),
}
CALLS: dict[str, tuple[str, Callable[[Connection], object]]] = {
    "prepare": ("nothing lent", lambda conn: conn.prepare_hostdevs(Domain("vm1", [NIC]))),
    "plan": ("nothing lent", lambda conn: conn.plan(Domain("vm1", [NIC]), PrepareFlags.NONE).devices),
    "group": ("nothing lent", lambda conn: conn.prepare_hostdevs(Domain("vm1", [GPU]))),
    "whole group": (
        "nothing lent",
        lambda conn: conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP),
    ),
    "physical function": (
        "nothing lent", lambda conn: conn.prepare_hostdevs(Domain("vm1", [PF])),
    ),
    "virtual function": ("nothing lent", lambda conn: conn.prepare_hostdevs(Domain("vm1", [VF]))),
    "usb": ("nothing lent", lambda conn: conn.prepare_hostdevs(Domain("vm1", [STICK]))),
    "reattach": ("lent", lambda conn: conn.reattach_hostdevs("vm1")),
    "reattach usb": ("stick lent", lambda conn: conn.reattach_hostdevs("vm1")),
    "reset": ("lent", lambda conn: conn.reset_device(NIC)),
}  # fmt: skip


def outcome(call: Callable[[], object]) -> object:
    """What a call ends with, and what is gone by its answer; the kind of a failure alone."""
    try:
        answer = call()
    except HostdevError as error:
        return type(error)
    return [*getattr(answer, "gone", ())]


def enumerate_looks(
    name: str, folder: Path, failure: int, registry: Registry, first: int, step: int
) -> int:
    """Let each `step`-th look of a call fail, from the `first` on; how many looks there are, or more."""
    setup, call = CALLS[name]
    faultless = None
    for number in count(first, step):
        host = make_machine(folder / f"{failure}-{number}")
        with open_connection("qemu:///system", host=host, registry=registry) as conn:
            SETUPS[setup](conn)
            before, records = host.snapshot(), in_words(host)
            if faultless is None:
                faultless = _faultless(name, folder / f"{failure}-0", registry)
            fault = Nth(number, failure)
            host.watch_reads(fault)
            ended = outcome(lambda conn=conn: call(conn))  # type: ignore[misc]
            host.watch_reads(None)
            if fault.hit is None:
                return number
            _judge(f"{name}, {fault.hit}", host, (ended, host.snapshot(), in_words(host)), faultless,
                   before, records)  # fmt: skip
            conn.recover()
            conn.reattach_hostdevs("vm1")
        shutil.rmtree(host.root)
    raise AssertionError


def _judge(
    where: str,
    host: SimulatedHost,
    seen: tuple[object, dict[str, Any], list[tuple[str, str, bool]]],
    faultless: object,
    before: dict[str, Any],
    records: list[tuple[str, str, bool]],
) -> None:
    """Right, or refused without a trace, or stuck with the reason; never lent or home by mistake."""
    ended, snapshot, words = seen
    if (_plain(ended), snapshot, words) == faultless:
        return
    assert isinstance(ended, type), (where, ended, faultless)
    if snapshot == before and [word[:1] for word in words] == [word[:1] for word in records]:
        return
    changed = {name for name in snapshot if snapshot[name] != before.get(name)}
    known = {address for address, *_ in words}
    assert changed - {"pciback", "xenstore"} <= known, (where, changed, words)


def _plain(ended: object) -> object:
    return ended if isinstance(ended, type) else ("done", ended)


def _faultless(name: str, folder: Path, registry: Registry) -> object:
    setup, call = CALLS[name]
    host = make_machine(folder)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        SETUPS[setup](conn)
        return _plain(outcome(lambda: call(conn))), host.snapshot(), in_words(host)


@pytest.mark.parametrize("name", CALLS)
def test_some_looks_that_fail(name: str, tmp_path: Path, registry: Registry) -> None:
    assert enumerate_looks(name, tmp_path, errno.EACCES, registry, 11, 11) > 11


@pytest.mark.long
@pytest.mark.parametrize("failure", FAILURES, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("name", CALLS)
def test_every_look_that_fails(name: str, failure: int, tmp_path: Path, registry: Registry) -> None:
    """Each look with two of the four."""
    first = 1 + FAILURES.index(failure) % 2
    assert enumerate_looks(name, tmp_path, failure, registry, first, 2) > 20
