"""What other processes do in these tests; each has its own registry and its own host object."""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    HostdevError,
    LocalHostdevDriver,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.harness.injection import Injector
from tests.helpers.faults import die
from tests.sample import make_registry

SPAWN = multiprocessing.get_context("spawn")


class OtherDriver(LocalHostdevDriver):
    name = "other"
    uri_schemes = ("other",)
    stubs = ("vfio-pci",)


class OtherPlugin:
    @hookimpl
    def hostdev_drivers(self) -> list[LocalHostdevDriver]:
        return [OtherDriver()]


def connect(
    root: str,
    uri: str = "qemu:///system",
    deadlines: Deadlines | None = None,
    *,
    worker: bool = False,
) -> Connection:
    registry = make_registry()
    registry.register(OtherPlugin(), name="other")
    host = SimulatedHost.open(root)
    return open_connection(uri, host=host, registry=registry, deadlines=deadlines, worker=worker)


def race(
    root: str, devices: list[str], domain: str, rounds: int, uri: str, barrier: Any, results: Any
) -> None:
    """Prepare when all others do, and again and again; one letter a round: won, lost, error."""
    outcome = ""
    with connect(root, uri) as conn:
        for _ in range(rounds):
            barrier.wait(60)
            try:
                conn.prepare_hostdevs(Domain(domain, devices))
                outcome += "W"
            except DeviceInUseError:
                outcome += "L"
            except HostdevError as error:
                outcome += f"[{error!r}]"
            barrier.wait(60)
            if outcome.endswith("W"):
                conn.reattach_hostdevs(domain)
    results.put((domain, outcome))


def prepare(root: str, domain: str, devices: list[str], uri: str = "qemu:///system") -> None:
    with connect(root, uri) as conn:
        conn.prepare_hostdevs(Domain(domain, devices))


def reattach(root: str, domain: str) -> None:
    with connect(root) as conn:
        conn.reattach_hostdevs(domain)


def hold(root: str, device: str, ready: Any) -> None:
    with SimulatedHost.open(root).hold(device):
        ready.set()
        time.sleep(60)


def leave_behind(root: str, domain: str, devices: list[str], seconds: float = 60.0) -> None:
    """Prepare in a thread, and end the main one alone while the kernel keeps the other."""
    conn = connect(root, deadlines=Deadlines(bind=seconds))
    wanted = (Domain(domain, devices),)
    threading.Thread(target=conn.prepare_hostdevs, args=wanted).start()
    SimulatedHost.open(root).wait_hanging()
    ctypes.CDLL(None).pthread_exit(None)


def run(target: Callable[..., None], *arguments: Any) -> None:
    """Run in another process, to its end."""
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 0


@contextmanager
def running(target: Callable[..., None], *arguments: Any) -> Iterator[BaseProcess]:
    """Another process while the block runs; it is killed at its end."""
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    try:
        yield process
    finally:
        kill(process)


def wait_until(is_so: Callable[[], object], timeout: float = 60.0) -> None:
    """Wait for what another process or thread brings about; TimeoutError when it does not."""
    end = time.monotonic() + timeout
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


def children(pid: int | None) -> list[int]:
    """The processes that the first thread of another one has started (proc(5))."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_told_to_stop(caller: int | None) -> bool:
    """Whether a process has told its worker to stop: that does not hear it a second time (proc(5))."""
    for worker in children(caller):
        status = Path(f"/proc/{worker}/status").read_text()
        ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
        if ignored >> (signal.SIGTERM - 1) & 1:
            return True
    return False


def killed_at(moment: int, call: Callable[[Callable[[str], None]], object]) -> bool:
    """Make a call in a forked process that dies at this moment of it; False when it had ended before.

    `call` gets what is to be given to `Host.watch`, by which moments are counted.
    """
    if (pid := os.fork()) == 0:
        try:
            call(Injector(die, {moment}))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def kill(process: BaseProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(60)
