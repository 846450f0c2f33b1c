"""A process that is out of threads or descriptors: a call says so, and nothing is lost."""

import fcntl
import os
import resource
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    Domain,
    HostdevError,
    KernelError,
    ReattachError,
    Registry,
    StateError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC


@contextmanager
def no_threads() -> Generator[None]:
    """Each new thread asks for a stack that no machine has."""
    before = threading.stack_size(1 << 60)
    try:
        yield
    finally:
        threading.stack_size(before)


@contextmanager
def busy(host: SimulatedHost) -> Generator[None]:
    """Somebody else is in the ledger."""
    host.ledger.create()
    taken = os.open(f"{host.state_dir}/turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(taken, fcntl.LOCK_EX)
        yield
    finally:
        os.close(taken)


def test_prepare_without_threads_changes_nothing(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    with no_threads(), pytest.raises(StateError, match=f"nothing was done about {NIC}.*thread"):
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_busy_ledger_without_threads_says_so(host: SimulatedHost, conn: Connection) -> None:
    """A USB device needs no thread but the one that waits while others are in the ledger."""
    host.add_usb("1-3")
    before = host.snapshot()
    with busy(host), no_threads(), pytest.raises(StateError, match=r"somebody has it.*thread"):
        conn.prepare_hostdevs(Domain("vm1", ["1-3"]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_reattach_without_threads_says_so_for_each_device(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    lent = host.snapshot()
    with no_threads(), pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    assert len(raised.value.exceptions) == 2
    assert all("thread" in str(error) for error in raised.value.exceptions)
    assert host.snapshot() == lent
    assert [record.phase for record in host.ledger.records()] == ["active", "active"]
    assert conn.reattach_hostdevs("vm1") == (NIC, DISK)  # the groups were let go
    assert host.snapshot() == before
    assert host.ledger.records() == []


@contextmanager
def descriptors(free: int) -> Generator[None]:
    """This many may be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken: list[int] = []
    with suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    try:
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("free", range(12))
def test_prepare_and_reattach_with_few_descriptors(
    host: SimulatedHost, conn: Connection, free: int
) -> None:
    """What can be read no more is not taken for gone; with more of them, everything comes right."""
    before = host.snapshot()
    with descriptors(free):
        error = outcome(lambda: conn.prepare_hostdevs(Domain("vm1", [NIC, DISK])))
    if error is not None:
        assert "no PCI device" not in error
        assert changed(host, before) <= {record.address for record in host.ledger.records()}
        conn.recover()
        assert host.snapshot() == before
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    with descriptors(free):
        error = outcome(lambda: conn.reattach_hostdevs("vm1"))
    if error is not None:
        assert "no PCI device" not in error
        assert changed(host, before) <= {record.address for record in host.ledger.records()}
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_list_without_descriptors_is_an_error(conn: Connection) -> None:
    with descriptors(0), pytest.raises(KernelError, match="Too many open files"):
        conn.list_devices()


def changed(host: SimulatedHost, before: dict[str, Any]) -> set[str]:
    """The devices that are not as they were."""
    now = host.snapshot()
    return {name for name in (NIC, DISK) if now[name] != before[name]}


def outcome(call: Callable[[], object]) -> str | None:
    """What a call's error says, with those in it."""
    try:
        call()
    except HostdevError as error:
        parts = error.exceptions if isinstance(error, ReattachError) else ()
        return "; ".join(map(str, (error, *parts)))
    return None


@contextmanager
def no_processes() -> Generator[None]:
    """No process may be started; root, whom the limit does not bind, is somebody else meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    ids = os.getresuid()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, before[1]))
    try:
        if ids[1] == 0:
            os.setresuid(65534, 65534, 0)
        yield
    finally:
        if ids[1] == 0:
            os.seteuid(0)
        os.setresuid(*ids)
        resource.setrlimit(resource.RLIMIT_NPROC, before)


def test_a_worker_that_cannot_be_started(host: SimulatedHost, registry: Registry) -> None:
    before = host.snapshot()
    with open_connection("qemu:///system", host=host, registry=registry, worker=True) as apart:
        apart.recover()  # loads what only root may read here
        files = len(os.listdir("/proc/self/fd"))
        with no_processes(), pytest.raises(StateError, match="no process can be started"):
            apart.prepare_hostdevs(Domain("vm1", [NIC]))
        assert len(os.listdir("/proc/self/fd")) == files
        apart.prepare_hostdevs(Domain("vm1", [NIC]))
        apart.reattach_hostdevs("vm1")
    assert host.snapshot() == before


@pytest.mark.parametrize("free", range(5))
def test_a_worker_that_could_not_be_heard_is_not_started(
    host: SimulatedHost, registry: Registry, free: int
) -> None:
    before = host.snapshot()
    with open_connection("qemu:///system", host=host, registry=registry, worker=True) as apart:
        apart.recover()
        files = len(os.listdir("/proc/self/fd"))
        with descriptors(free), suppress(StateError, KernelError):
            apart.prepare_hostdevs(Domain("vm1", [NIC]))
        assert len(os.listdir("/proc/self/fd")) == files
        apart.recover()
        apart.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_who_waits_for_the_ledger_with_an_alarm_of_its_own_hears_that(
    host: SimulatedHost, conn: Connection
) -> None:
    """A handler that raises TimeoutError, as programs do, is not taken for the ledger's patience."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError("mine")

    def set_the_alarm(what: str) -> None:
        if what == "before transaction":
            signal.setitimer(signal.ITIMER_REAL, 0.3)

    before = host.snapshot()
    former = signal.signal(signal.SIGALRM, ring)
    host.watch(set_the_alarm)
    try:
        with busy(host), pytest.raises(TimeoutError, match="mine"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
    finally:
        host.watch(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert host.snapshot() == before
    assert host.ledger.records() == []
