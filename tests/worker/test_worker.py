"""Changes in a process of their own, which outlive the caller's patience and the caller."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    HostdevDriver,
    KernelTimeoutError,
    ReattachError,
    Registry,
    StateError,
    hookimpl,
    open_connection,
)
from hostdev_core.errors import WAS_DONE
from hostdev_core.simulated import SimulatedHost
from hostdev_qemu import QemuDriver
from tests.helpers.processes import children, connect, wait_until
from tests.sample import DISK, NIC

SHORT = Deadlines(unbind=0.3)  # for calls whose only unbind hangs


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


def test_a_killed_caller_stops_nothing(host: SimulatedHost) -> None:
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    program = "import sys; from tests.helpers.lend_apart import lend_apart; lend_apart(sys.argv[1])"
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
    program = "import sys; from tests.helpers.lend_apart import lend_apart; lend_apart(sys.argv[1])"
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
