"""Signals and a worker: each process hears its own, and the caller hears of its worker's death."""

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Domain,
    Host,
    HostdevDriver,
    LocalHostdevDriver,
    PCIDevice,
    Registry,
    StateError,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.lend_apart import lend_apart
from tests.helpers.processes import SPAWN, is_told_to_stop, running, wait_until
from tests.sample import NIC


class Asked(LocalHostdevDriver):
    """Is told to stop for a second time when the undo asks it who has the device."""

    name = "asked"
    uri_schemes = ("asked",)
    stubs = ("vfio-pci",)
    was_told = False

    def holders(self, host: Host, device: PCIDevice) -> Sequence[str]:
        if self.was_told:
            os.kill(os.getpid(), signal.SIGTERM)
        return []


class Stopping:
    """Brings it, and is told to stop before the first write."""

    def __init__(self) -> None:
        self.driver = Asked()

    @hookimpl
    def hostdev_drivers(self) -> list[HostdevDriver]:
        return [self.driver]

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        self.driver.was_told = True
        os.kill(os.getpid(), signal.SIGTERM)


def lend_and_be_stopped(root: str) -> None:
    registry = Registry()
    registry.register(Stopping())
    host = SimulatedHost.open(root)
    with open_connection("asked:///system", host=host, registry=registry, worker=True) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))


def test_a_worker_that_is_told_to_stop_twice_undoes(host: SimulatedHost) -> None:
    """The second time comes in the middle of the undo: that is not interrupted."""
    before = host.snapshot()
    with running(lend_and_be_stopped, host.root) as caller:
        caller.join(60)
        assert caller.exitcode not in {0, None}
    assert host.ledger.records() == []
    assert host.snapshot() == before


def test_an_interrupted_caller_undoes(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    with running(lend_apart, host.root) as caller:
        host.wait_hanging()
        assert caller.pid is not None
        os.kill(caller.pid, signal.SIGINT)
        wait_until(lambda: is_told_to_stop(caller.pid))
        host.release()
        caller.join(60)
        assert caller.exitcode not in {0, None}
    assert host.snapshot() == before
    assert host.ledger.records() == []


def stop_with_a_bell(root: str, answers: Any) -> None:
    """As a program with asyncio does that is stopped in the middle of a call."""
    bell, ring = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(ring)
    with suppress(KeyboardInterrupt):
        lend_apart(root)
    answers.send(os.read(bell, 16))


def test_a_workers_signals_are_not_its_callers(host: SimulatedHost) -> None:
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    reader, writer = SPAWN.Pipe(duplex=False)
    with running(stop_with_a_bell, host.root, writer) as caller:
        host.wait_hanging()
        assert caller.pid is not None
        os.kill(caller.pid, signal.SIGINT)
        wait_until(lambda: is_told_to_stop(caller.pid))
        host.release()
        assert reader.poll(60)
        assert reader.recv() == bytes([signal.SIGINT])  # the worker's SIGTERM is its own


def lend_with_a_bell(root: str, answers: Any) -> None:
    """As a program with asyncio does, which has a byte sent to itself for each signal."""
    bell, ring = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    lend_apart(root)
    answers.send((signal.set_wakeup_fd(-1) == ring, os.read(bell, 16)))


def test_whoever_waits_for_signals_by_a_descriptor_hears_of_them(host: SimulatedHost) -> None:
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    reader, writer = SPAWN.Pipe(duplex=False)
    with running(lend_with_a_bell, host.root, writer) as caller:
        host.wait_hanging()
        assert caller.pid is not None
        os.kill(caller.pid, signal.SIGUSR1)
        host.release()
        assert reader.poll(60)
        assert reader.recv() == (True, bytes([signal.SIGUSR1]))


def lend_apart_if_it_may(root: str) -> None:
    with suppress(KeyboardInterrupt):
        lend_apart(root)


def stop_the_worker_of_a_thread(root: str, answers: Any) -> None:
    """The worker is told to stop, and this process is not."""
    bell, ring = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(ring)
    lending = threading.Thread(target=lend_apart_if_it_may, args=(root,))
    lending.start()
    host = SimulatedHost.open(root)
    host.wait_hanging()
    (pid,) = Path("/proc/self/task", str(lending.native_id), "children").read_text("ascii").split()
    os.kill(int(pid), signal.SIGTERM)
    host.release()
    lending.join()
    with suppress(BlockingIOError):
        answers.send(os.read(bell, 16))
    answers.send(b"")


def test_a_thread_has_a_worker_whose_signals_are_its_own(host: SimulatedHost) -> None:
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    reader, writer = SPAWN.Pipe(duplex=False)
    with running(stop_the_worker_of_a_thread, host.root, writer):
        assert reader.poll(60)
        assert reader.recv() == b""


class Doomed:
    """Ends its process with a child left behind, which has all that the process had open."""

    def __init__(self, told: Path) -> None:
        self.told = told

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        pid = os.fork()
        if pid == 0:
            threading.Event().wait(60)
            os._exit(0)
        self.told.write_text(str(pid))
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_workers_death_is_heard_whoever_has_its_pipe(
    host: SimulatedHost, registry: Registry, tmp_path: Path
) -> None:
    before, doomed = host.snapshot(), Doomed(tmp_path / "told")
    registry.register(doomed, name="doomed")
    with open_connection("qemu:///system", host=host, registry=registry, worker=True) as apart:
        with pytest.raises(StateError, match="ended without an answer"):
            apart.prepare_hostdevs(Domain("vm1", [NIC]))
        os.kill(int(doomed.told.read_text()), signal.SIGKILL)  # it was alive all the time
        apart.recover()
    assert host.snapshot() == before
    assert host.ledger.records() == []
