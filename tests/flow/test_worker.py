"""Changes in a process of their own, which outlive the caller's patience and the caller."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    KernelTimeoutError,
    ReattachError,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.flow.workers import DISK, NIC, SPAWN, connect, running, wait_until

SHORT = Deadlines(unbind=0.3)


@pytest.fixture
def apart(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection(
        "qemu:///system", host=host, registry=registry, worker=True, deadlines=SHORT
    ) as conn:
        yield conn
    host.release()


def test_results_and_errors_come_back(host: SimulatedHost, apart: Connection) -> None:
    before = host.snapshot()
    (assignment,) = apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert assignment.device is not None
    assert assignment.device.name == NIC
    with pytest.raises(DeviceInUseError) as raised:
        apart.prepare_hostdevs(Domain("vm2", [NIC]))
    assert raised.value.used_by is not None
    assert raised.value.used_by.domain == "vm1"
    host.on_write("bus/pci/drivers/vfio-pci/unbind", errno=5)
    with pytest.raises(ReattachError, match=NIC):
        apart.reattach_hostdevs("vm1")
    assert apart.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot() == before


def test_the_caller_comes_back_at_the_deadline(host: SimulatedHost, apart: Connection) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    with pytest.raises(KernelTimeoutError, match=NIC):
        apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.hanging()
    host.release()
    wait_until(lambda: host.ledger.records() == [])
    assert host.snapshot() == before


def lend_apart(root: str) -> None:
    with connect(root) as conn:
        conn.worker = True
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))


def test_a_killed_caller_stops_nothing(host: SimulatedHost) -> None:
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    program = "import sys; from tests.flow.test_worker import lend_apart; lend_apart(sys.argv[1])"
    folders = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(  # not multiprocessing: its sentinel pipe would stay open in the worker
        [sys.executable, "-c", program, host.root], env=os.environ | {"PYTHONPATH": folders}
    ) as caller:
        try:
            host.wait_hanging()
        finally:
            caller.kill()
        caller.wait()
        host.release()
        wait_until(lambda: {str(r.phase) for r in host.ledger.records()} == {"active"})
    with connect(host.root) as conn:
        assert sorted(conn.reattach_hostdevs("vm1")) == [NIC, DISK]


def test_an_interrupted_caller_undoes(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    with running(lend_apart, host.root) as caller:
        host.wait_hanging()
        assert caller.pid is not None
        os.kill(caller.pid, signal.SIGINT)
        time.sleep(0.2)
        host.release()
        caller.join(20)
        assert caller.exitcode not in {0, None}
    assert host.snapshot() == before
    assert host.ledger.records() == []


class Meanwhile:
    """Lets a worker of another thread begin while a device on its way back is guarded."""

    def __init__(self, host: SimulatedHost, begin: Callable[[], object]) -> None:
        self.host = host
        self.thread = threading.Thread(target=begin)

    @hookimpl
    def hostdev_before_reattach(self) -> None:
        self.thread.start()
        self.host.wait_hanging()


def test_a_worker_holds_no_group_that_another_thread_guards(
    host: SimulatedHost, registry: Registry, apart: Connection
) -> None:
    """It is at work on its own device for long; the guest of the other one starts all the same."""
    plugin = Meanwhile(host, lambda: apart.prepare_hostdevs(Domain("vm2", [DISK])))
    registry.register(plugin)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.detach_device(NIC)
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        host.on_write("bus/pci/drivers/vfio-pci/bind", hang=True, value=DISK)
        conn.reattach_hostdevs("vm1")
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        with host.hold(NIC):
            host.release()
        plugin.thread.join()
        assert [device.name for device in conn.get_active_pci_hostdev_list()] == [NIC, DISK]


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
        assert reader.poll(30)
        assert reader.recv() == (True, bytes([signal.SIGUSR1]))
