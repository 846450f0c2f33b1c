"""Workers that somebody stops: whoever waits for one has an end, and the worker keeps what it has."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hostdev_core import Connection, Deadlines, Domain, Registry, StateError, open_connection
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, start
from tests.helpers.processes import SPAWN, connect, is_told_to_stop, running, wait_until
from tests.sample import NIC

HASTY = Deadlines(ledger=1.0)  # the shortest is how long a stopped worker is waited for


@pytest.fixture
def apart(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection(
        "qemu:///system", host=host, registry=registry, worker=True, deadlines=HASTY
    ) as conn:
        yield conn


def worker_of(host: SimulatedHost) -> int:
    """The pid of who works on this host."""
    (name,) = operations.list_ids(host.state_dir)
    found = re.search(r"\(pid (\d+)\)", operations.describe(host.state_dir, name))
    assert found is not None
    return int(found[1])


def check_owned(host: SimulatedHost) -> None:
    """The record is as it was, and its operation alive."""
    (record,) = host.ledger.records()
    assert record.phase == "preparing"
    assert record.op is not None
    assert operations.is_alive(host.state_dir, record.op)


def check_completed(host: SimulatedHost, worker: int) -> None:
    """Once it may go on, the worker does what it was asked for."""
    os.kill(worker, signal.SIGCONT)
    host.release()
    wait_until(lambda: [str(r.phase) for r in host.ledger.records()] == ["active"])
    with connect(host.root) as conn:
        assert conn.reattach_hostdevs("vm1") == (NIC,)


def outcome(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


def test_a_program_is_back_from_a_stopped_worker(host: SimulatedHost, apart: Connection) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    ends: list[BaseException | None] = []
    caller = threading.Thread(
        target=lambda: ends.append(outcome(lambda: apart.prepare_hostdevs(Domain("vm1", [NIC]))))
    )
    caller.start()
    host.wait_hanging()
    worker = worker_of(host)
    os.kill(worker, signal.SIGSTOP)
    caller.join(30)
    if caller.is_alive():
        os.kill(worker, signal.SIGCONT)
        host.release()
        pytest.fail("it waits for a worker that is stopped")
    (error,) = ends
    assert isinstance(error, StateError)
    assert re.search(rf"the worker \(pid {worker}\) was stopped .*SIGSTOP", str(error))
    assert f"kill -CONT {worker}" in error.__notes__[0]
    check_owned(host)
    check_completed(host, worker)
    assert host.snapshot() == before


def lend_with_a_fork(root: str, answers: Any) -> None:
    """A program of one thread, which is interrupted."""
    with connect(root, deadlines=HASTY, worker=True) as conn:
        error = outcome(lambda: conn.prepare_hostdevs(Domain("vm1", [NIC])))
        answers.send((type(error), getattr(error, "__notes__", ())))


@pytest.mark.long
def test_an_interrupted_program_is_back_from_a_stopped_worker(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    reader, writer = SPAWN.Pipe(duplex=False)
    with running(lend_with_a_fork, host.root, writer) as caller:
        host.wait_hanging()
        worker = worker_of(host)
        assert caller.pid is not None
        os.kill(caller.pid, signal.SIGINT)
        wait_until(lambda: is_told_to_stop(caller.pid))
        os.kill(worker, signal.SIGSTOP)
        assert reader.poll(60)
        kind, notes = reader.recv()
    assert kind is KeyboardInterrupt
    assert f"the worker (pid {worker}) was stopped" in " ".join(notes)
    check_owned(host)
    os.kill(worker, signal.SIGCONT)
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


def test_the_command_is_back_from_a_stopped_worker(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    with start("prepare", "vm1", NIC, "--timeout", "3", *QEMU, host=host) as command:
        host.wait_hanging()
        worker = worker_of(host)
        os.kill(worker, signal.SIGSTOP)
        assert command.wait(60) == 3  # something is stuck
        assert command.stderr is not None
        assert f"the worker (pid {worker}) was stopped" in command.stderr.read()
    check_owned(host)
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: [record for record in host.ledger.records() if record.stuck])
    host.release()  # too late: it undoes
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before
