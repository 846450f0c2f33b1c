"""Changes in a process of their own, which outlive the caller's patience and the caller."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    Host,
    HostdevDriver,
    KernelTimeoutError,
    LocalHostdevDriver,
    PCIDevice,
    ReattachError,
    Registry,
    StateError,
    hookimpl,
    open_connection,
)
from hostdev_core.errors import WAS_DONE
from hostdev_core.simulated import SimulatedHost
from hostdev_qemu import QemuDriver
from tests.helpers.processes import SPAWN, children, connect, is_told_to_stop, running, wait_until
from tests.sample import DISK, NIC

SHORT = Deadlines(unbind=0.3)  # for calls whose only unbind hangs


@pytest.fixture
def apart(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection("qemu:///system", host=host, registry=registry, worker=True) as conn:
        yield conn
    host.release()


@pytest.fixture
def hasty(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
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


def test_the_caller_comes_back_at_the_deadline(host: SimulatedHost, hasty: Connection) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    with pytest.raises(KernelTimeoutError, match=NIC):
        hasty.prepare_hostdevs(Domain("vm1", [NIC]))
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
    program = "import sys; from tests.worker.test_worker import lend_apart; lend_apart(sys.argv[1])"
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


SEVERAL = (
    "import threading, time; threading.Thread(target=time.sleep, args=[99], daemon=True).start()"
)


@pytest.mark.parametrize("first", ["", SEVERAL], ids=["alone", "of several threads"])
def test_who_kills_the_callers_whole_group_stops_nothing(host: SimulatedHost, first: str) -> None:
    """As a shell, `timeout` or a service manager does: the worker is in none of the caller's groups."""
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    program = "import sys; from tests.worker.test_worker import lend_apart; lend_apart(sys.argv[1])"
    folders = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", f"{first}\n{program}", host.root],
        env=os.environ | {"PYTHONPATH": folders},
        start_new_session=True,
    ) as caller:
        try:
            host.wait_hanging()
            (worker,) = children(caller.pid)
            assert os.getsid(worker) == worker
        finally:
            os.killpg(caller.pid, signal.SIGKILL)
        caller.wait()
    host.release()
    wait_until(lambda: {str(r.phase) for r in host.ledger.records()} == {"active"})
    with connect(host.root) as conn:
        assert sorted(conn.reattach_hostdevs("vm1")) == [NIC, DISK]


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


@attrs.define(eq=False)
class Telling(QemuDriver):
    """A backend whose words are of a type that no other process knows."""

    name = "telling"
    uri_schemes = ("telling",)

    def arguments(self, device: object, node: str | None) -> Sequence[str]:
        class Word(str):
            __slots__ = ()

        return (Word("-device"),)

    @hookimpl
    def hostdev_drivers(self) -> list[HostdevDriver]:
        return [self]


def test_an_answer_that_cannot_be_brought_here_is_an_error(host: SimulatedHost) -> None:
    """It was done all the same, and the error says so."""
    before, registry = host.snapshot(), Registry()
    registry.register(Telling())
    with open_connection("telling:///system", host=host, registry=registry, worker=True) as apart:
        with pytest.raises(StateError, match="cannot be told") as raised:
            apart.prepare_hostdevs(Domain("vm1", [NIC]))
        assert WAS_DONE in raised.value.__notes__
        assert [record.is_lent for record in host.ledger.records()] == [True]
        assert apart.reattach_hostdevs("vm1") == (NIC,)
    assert host.snapshot() == before


def nap_for_ever() -> None:
    threading.Event().wait()


def begin_a_daemon() -> None:
    threading.Thread(target=nap_for_ever, daemon=True).start()


def begin_a_pool() -> None:
    ThreadPoolExecutor(1).submit(int).result()


@attrs.define(eq=False)
class Starting:
    """Starts threads when a device is lent."""

    start: Callable[[], None]

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        self.start()


def living_children() -> set[int]:
    """The processes that this one has started and that have not ended."""
    return {pid for pid in children(os.getpid()) if not has_ended(pid)}


def has_ended(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("start", [begin_a_daemon, begin_a_pool])
def test_a_worker_ends_with_what_plugins_left_running(
    host: SimulatedHost, registry: Registry, apart: Connection, start: Callable[[], None]
) -> None:
    registry.register(Starting(start))
    with open_connection("qemu:///system", host=host, registry=registry, worker=True) as conn:
        before = living_children()  # of other tests, perhaps about to end
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
        wait_until(lambda: living_children() <= before)


def test_a_lane_is_waited_for_whoever_started_it(host: SimulatedHost, hasty: Connection) -> None:
    """The worker of a daemon thread is left by its caller, and undoes when the kernel returns."""
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    errors: list[Exception] = []

    def lend() -> None:
        try:
            hasty.prepare_hostdevs(Domain("vm1", [NIC]))
        except KernelTimeoutError as error:
            errors.append(error)

    caller = threading.Thread(target=lend, daemon=True)
    caller.start()
    caller.join()
    assert len(errors) == 1
    host.release()
    wait_until(lambda: not host.ledger.records())
    assert host.snapshot() == before


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
