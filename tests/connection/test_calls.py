"""A connection that is closed while calls are under way, in a forked process, and by several threads."""

import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

import hostdev_test
from hostdev_core import (
    Connection,
    ConnectionClosedError,
    Domain,
    PluginError,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.interrupts import interrupted
from tests.sample import DISK, NIC


class Listener:
    """Writes down what it hears, and does as it is told at a hook."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.at: dict[str, Callable[[Connection], object]] = {}

    def _hear(self, what: str, conn: Connection) -> None:
        self.heard.append(what)
        self.at.get(what, lambda _: None)(conn)

    @hookimpl
    def hostdev_before_prepare(self, conn: Connection) -> None:
        self._hear("before_prepare", conn)

    @hookimpl
    def hostdev_after_prepare(self, conn: Connection) -> None:
        self._hear("after_prepare", conn)

    @hookimpl
    def hostdev_prepare_failed(self, conn: Connection) -> None:
        self._hear("prepare_failed", conn)

    @hookimpl
    def hostdev_connection_closing(self, conn: Connection) -> None:
        self._hear("closing", conn)


@pytest.fixture
def listener(registry: Registry) -> Listener:
    listener = Listener()
    registry.register(listener, name="listener")
    return listener


@pytest.fixture
def own(registry: Registry) -> Iterator[Connection]:
    """A connection that brings its host, which goes when it is closed."""
    registry.register(hostdev_test, name="test")
    with open_connection("test:///default", registry=registry) as conn:
        yield conn


@contextmanager
def under_way(conn: Connection, host: SimulatedHost, device: str) -> Generator[list[object]]:
    """A prepare of another thread that hangs at the unbind; what is given is its end, after the block."""
    ends: list[object] = []

    def lend() -> None:
        try:
            ends.append(conn.prepare_hostdevs(Domain("vm1", [device])))
        except BaseException as error:
            ends.append(error)

    host.on_write("bus/pci/drivers/*/unbind", value=device, hang=True)
    thread = threading.Thread(target=lend)
    thread.start()
    try:
        host.wait_hanging()
        yield ends
    finally:
        host.release()
        thread.join()


def test_a_call_under_way_ends_in_order(
    host: SimulatedHost, conn: Connection, listener: Listener
) -> None:
    before = host.snapshot()
    with under_way(conn, host, NIC) as ends:
        conn.close()
        assert conn.is_closed
        with pytest.raises(ConnectionClosedError):
            conn.prepare_hostdevs(Domain("vm2", [DISK]))
        with pytest.raises(ConnectionClosedError):
            conn.list_devices()
        assert ends == []
    assert isinstance(ends[0], tuple)
    assert listener.heard == ["before_prepare", "after_prepare", "closing"]
    assert [record.address for record in host.ledger.records() if record.is_lent] == [NIC]
    with open_connection("qemu:///system", host=host, registry=conn.registry) as another:
        another.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_host_that_the_connection_brought_outlives_the_call(
    own: Connection, listener: Listener
) -> None:
    host = SimulatedHost.open(own.host.root)
    with under_way(own, host, "0000:01:00.0") as ends:
        own.close()
        assert os.path.isdir(host.root)
    (answer,) = ends
    assert isinstance(answer, tuple), answer
    assert listener.heard == ["before_prepare", "after_prepare", "closing"]
    assert not os.path.exists(host.root)


def test_the_last_of_several_calls_closes(own: Connection, listener: Listener) -> None:
    host = SimulatedHost.open(own.host.root)
    with under_way(own, host, "0000:01:00.0") as first:
        own.prepare_hostdevs(Domain("vm2", ["0000:04:00.0"]))
        own.close()
        own.close()
        assert "closing" not in listener.heard
    assert isinstance(first[0], tuple)
    assert listener.heard.count("closing") == 1
    assert listener.heard[-1] == "closing"


def test_a_hook_that_closes_does_not_wait_for_itself(
    host: SimulatedHost, conn: Connection, listener: Listener
) -> None:
    """What the call's hooks ask of the connection is a part of the call, and is answered."""
    listener.at["before_prepare"] = Connection.close
    listener.at["after_prepare"] = Connection.list_devices
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert listener.heard == ["before_prepare", "after_prepare", "closing"]
    assert conn.is_closed
    assert [record.is_lent for record in host.ledger.records()] == [True]
    with pytest.raises(ConnectionClosedError):
        conn.reattach_hostdevs("vm1")


def test_a_failing_call_closes_after_its_undo(
    host: SimulatedHost, conn: Connection, listener: Listener
) -> None:
    before = host.snapshot()

    def fail(conn: Connection) -> None:
        conn.close()
        raise ZeroDivisionError

    listener.at["after_prepare"] = fail
    with pytest.raises(PluginError):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert listener.heard == ["before_prepare", "after_prepare", "prepare_failed", "closing"]
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_several_threads_close_once(conn: Connection, listener: Listener) -> None:
    together = threading.Barrier(8)

    def close() -> None:
        together.wait()
        conn.close()

    threads = [threading.Thread(target=close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    conn.close()
    assert listener.heard == ["closing"]


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked process that does some work."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_process_closes_nothing_of_its_parents(
    own: Connection, listener: Listener, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    listener.at["closing"] = lambda _: told.touch()

    def leave() -> None:
        with own:
            own.list_devices()
        own.close()
        assert own.is_closed

    assert in_child(leave) == 0
    assert not told.exists()
    assert not own.is_closed
    assert os.path.isdir(own.host.root)
    own.prepare_hostdevs(Domain("vm1", ["0000:01:00.0"]))
    own.reattach_hostdevs("vm1")
    own.close()
    assert told.exists()
    assert not os.path.exists(own.host.root)


def test_a_process_forked_during_a_call_is_not_in_it(own: Connection, listener: Listener) -> None:
    """The child has no thread that will ever end the call of another one."""
    host = SimulatedHost.open(own.host.root)
    with under_way(own, host, "0000:01:00.0") as ends:
        assert in_child(own.close) == 0
        assert os.path.isdir(host.root)
    assert isinstance(ends[0], tuple)
    assert "closing" not in listener.heard
    assert os.path.isdir(host.root)


def in_calls(frame: FrameType) -> bool:
    return frame.f_code.co_filename.endswith("hostdev_core/calls.py")


def test_an_interrupted_call_keeps_no_connection_open(
    host: SimulatedHost, registry: Registry, listener: Listener
) -> None:
    for moment in count(1):
        listener.heard.clear()
        conn = open_connection("qemu:///system", host=host, registry=registry)
        with suppress(KeyboardInterrupt), interrupted(moment, in_calls) as came:
            conn.list_devices()
        conn.close()
        assert listener.heard == ["closing"], moment
        if not came:
            break
    assert moment > 10
