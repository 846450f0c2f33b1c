"""Calls that a new interpreter cannot make, or makes with much to tell: as found, or lent and said so."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest

import hostdev_core
import hostdev_qemu
from hostdev_core import (
    Connection,
    Domain,
    HostdevDriver,
    LocalHostdevDriver,
    OpenError,
    PluginError,
    Refusal,
    Registry,
    StateError,
    VetoError,
    hookimpl,
    open_connection,
)
from hostdev_core.driver import OpenResult
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Untouched
from tests.sample import NIC, registered


@pytest.fixture
def executable() -> Iterator[None]:
    """Another interpreter for multiprocessing, for one test."""
    former = spawn.get_executable()
    yield
    multiprocessing.set_executable(former)


@pytest.mark.usefixtures("executable")
@pytest.mark.parametrize(
    ("name", "said"), [("", "does not know its interpreter"), ("/dev/null", "cannot be started")]
)
def test_an_interpreter_that_is_none(
    host: SimulatedHost, apart: Connection, name: str, said: str
) -> None:
    multiprocessing.set_executable(name)
    with Untouched(host), pytest.raises(StateError, match=rf"{said}.*nothing was changed"):
        apart.prepare_hostdevs(Domain("vm1", [NIC]))


UPGRADED = """
import sys, threading
from pathlib import Path
import hostdev_core, hostdev_qemu
from hostdev_core import Domain, Registry, StateError, open_connection
from hostdev_core.simulated import SimulatedHost

threading.Thread(target=threading.Event().wait, daemon=True).start()
registry = Registry()
registry.register(hostdev_qemu, name="qemu")
host = SimulatedHost.open(sys.argv[1])
with open_connection("qemu:///system", host=host, registry=registry, worker=True) as conn:
    file = Path(hostdev_core.__file__)
    assert file.is_relative_to(Path.cwd())  # the copy, which alone may be written
    line = f'__version__ = "{hostdev_core.__version__}"'
    file.write_text(file.read_text().replace(line, '__version__ = "99.0"'))
    try:
        conn.prepare_hostdevs(Domain("vm1", ["0000:01:00.0"]))
    except StateError as error:
        print(error)
"""


def test_a_caller_that_an_upgrade_left_behind(host: SimulatedHost, tmp_path: Path) -> None:
    for package in hostdev_core, hostdev_qemu:
        folder = Path(str(package.__file__)).parent
        shutil.copytree(
            folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    with Untouched(host):
        done = subprocess.run(
            [sys.executable, "-c", UPGRADED, host.root],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stderr == ""
    assert re.match(r"this process runs hostdev .*, and 99\.0 is installed now", done.stdout)


class OnlyHere(LocalHostdevDriver):
    """A driver that opens in one process."""

    name = "mine"
    uri_schemes = ("mine",)
    stubs = ("vfio-pci",)

    def __init__(self) -> None:
        self.pid = os.getpid()

    def open(self, conn: Connection) -> OpenResult:
        conn.hostdev_private_data = threading.Lock()
        return OpenResult.SUCCESS if os.getpid() == self.pid else OpenResult.DECLINED


class BringsHere:
    """A plugin that brings a driver in one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    @hookimpl
    def hostdev_drivers(self) -> list[HostdevDriver]:
        return [OnlyHere()] if os.getpid() == self.pid else []


def brought_here() -> Registry:
    registry = Registry()
    registry.register(BringsHere(), name="here")
    return registry


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: registered(OnlyHere()), "driver mine declined mine:///system in the worker"),
        (brought_here, "there is no driver 'mine' here"),
    ],
)
def test_a_driver_that_is_not_the_same_there(host: SimulatedHost, make: Any, said: str) -> None:
    with (
        open_connection("mine:///system", host=host, registry=make(), worker=True) as conn,
        Untouched(host),
        pytest.raises((OpenError, StateError), match=said),
    ):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))


def test_a_host_that_cannot_be_handed_over(host: SimulatedHost, registry: Registry) -> None:
    class Local(SimulatedHost):
        """Of a function, which nobody imports."""

    mine = Local(host.root)
    with (
        open_connection("qemu:///system", host=mine, registry=registry, worker=True) as conn,
        Untouched(host),
        pytest.raises(StateError, match="and its host cannot be handed"),
    ):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))


@hookimpl(specname="hostdev_drivers")
def drivers_of_nobody() -> list[HostdevDriver]:
    return [OnlyHere()]


def test_a_module_that_was_made_by_hand(host: SimulatedHost) -> None:
    module = types.ModuleType("handmade")
    vars(module)["hostdev_drivers"] = drivers_of_nobody
    registry = Registry()
    registry.register(module, name="by-hand")
    with (
        open_connection("mine:///system", host=host, registry=registry, worker=True) as conn,
        Untouched(host),
        pytest.raises(StateError, match="no module handmade to import"),
    ):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))


class Stays:
    """A plugin that stays with its caller: it has a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.heard: list[str] = []
        self.answer: Any = None
        self.error: BaseException | None = None

    @hookimpl
    def hostdev_check(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer

    @hookimpl
    def hostdev_before_prepare(self, domain: Domain) -> None:
        self.heard.append(f"before {domain.name} {os.getpid()}")

    @hookimpl
    def hostdev_before_reattach(self, domain: Domain) -> None:
        self.heard.append(f"end of {domain.name} {os.getpid()}")


@pytest.fixture
def plugin(registry: Registry) -> Stays:
    plugin = Stays()
    registry.register(plugin, name="stays")
    return plugin


def test_each_hook_of_one_that_stays(host: SimulatedHost, apart: Connection, plugin: Stays) -> None:
    before = host.snapshot()
    apart.prepare_hostdevs(Domain("vm1", [NIC]))
    apart.reattach_hostdevs("vm1")
    assert plugin.heard == [f"before vm1 {os.getpid()}", f"end of vm1 {os.getpid()}"]
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_more_refusals_than_a_pipe_holds(
    host: SimulatedHost, apart: Connection, plugin: Stays
) -> None:
    plugin.answer = [Refusal("mine", NIC, f"{number} {'x' * 999}") for number in range(999)]
    with Untouched(host), pytest.raises(VetoError) as raised:
        apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert raised.value.refusals == tuple(plugin.answer)


def test_an_answer_that_stays_with_its_plugin(
    host: SimulatedHost, apart: Connection, plugin: Stays
) -> None:
    plugin.answer = [threading.Lock()]
    with Untouched(host), pytest.raises(PluginError, match=r"stays: .*which cannot be told"):
        apart.prepare_hostdevs(Domain("vm1", [NIC]))


def test_a_signal_in_a_hook_that_stays_undoes(
    host: SimulatedHost, apart: Connection, plugin: Stays
) -> None:
    plugin.error = KeyboardInterrupt()
    before = host.snapshot()
    with pytest.raises(KeyboardInterrupt):
        apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_a_program_with_a_wakeup_descriptor_hears_of_signals_meanwhile(
    host: SimulatedHost, apart: Connection
) -> None:
    """As asyncio has one."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    former = signal.set_wakeup_fd(writer)

    def hear(number: int, frame: object) -> None:
        """Nothing: its byte is what is waited for."""

    handler = signal.signal(signal.SIGUSR1, hear)
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)

    def tell() -> None:
        host.wait_hanging()
        os.kill(os.getpid(), signal.SIGUSR1)
        host.release()

    teller = threading.Thread(target=tell)
    try:
        teller.start()
        apart.prepare_hostdevs(Domain("vm1", [NIC]))
        teller.join()
        assert os.read(reader, 99) == bytes([signal.SIGUSR1])
        assert signal.set_wakeup_fd(-1) == writer
    finally:
        signal.set_wakeup_fd(former)
        signal.signal(signal.SIGUSR1, handler)
        os.close(reader)
        os.close(writer)
    assert apart.reattach_hostdevs("vm1") == (NIC,)
