"""A kernel that crashes in a write: the thread that made it is gone, and the device stays locked."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceInUseError,
    Domain,
    KernelCrashError,
    KernelTimeoutError,
    ReattachError,
    Registry,
    open_connection,
)
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from hostdev_core.simulated.kernel.disk import MEMORY
from tests.helpers.cli_command import run
from tests.helpers.processes import wait_until
from tests.sample import DISK, NIC

WORDS = "the kernel crashed in this: unbind 0000:01:00.0 from e1000e"


@pytest.fixture
def conn(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    limits = Deadlines(attribute=20)
    with open_connection("qemu:///system", host=host, registry=registry, deadlines=limits) as conn:
        yield conn


def crash(host: SimulatedHost) -> None:
    host.on_write("*/e1000e/unbind", value=NIC, crash=True)


def test_it_is_told_from_a_kernel_that_is_slow(host: SimulatedHost, conn: Connection) -> None:
    crash(host)
    with pytest.raises(KernelCrashError, match="only a reboot frees it") as caught:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert str(caught.value).startswith(WORDS)
    (record,) = host.ledger.records()
    assert (record.address, record.op) == (NIC, None)
    assert (record.stuck or "").startswith(WORDS)
    assert host.snapshot()[DISK]["kernel_driver"] == "nvme"  # the others were given back
    assert operations.list_ids(host.state_dir) == []


def test_the_kernel_s_words_are_of_this_crash(host: SimulatedHost, conn: Connection) -> None:
    """Not of one that ended a thread with this number before the write began, nor of another thread's."""
    log = Path(host.path("dev/kmsg"))
    log.touch()

    def say(seconds: float, what: str, thread: int) -> None:
        with log.open("a") as file:
            for text in (f"BUG: {what}", f"CPU: 0 PID: {thread} Comm: python"):
                file.write(f"4,1,{seconds * 1e6:.0f},-;{text}\n")

    def watch(moment: str) -> None:
        if moment == "before write bus/pci/drivers/e1000e/unbind":
            thread, now = threading.get_native_id(), time.monotonic()
            say(0.0, "another crash", thread)
            say(now + 3600, "a stranger's crash", thread + 1)
            say(now + 3600, "this crash", thread)

    crash(host)
    host.watch(watch)
    with pytest.raises(KernelCrashError, match="only a reboot frees it") as caught:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert "(kernel: BUG: this crash);" in str(caught.value)


def test_nobody_waits_for_it_again(host: SimulatedHost, conn: Connection) -> None:
    crash(host)
    with pytest.raises(KernelCrashError):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    before = host.snapshot(), host.ledger.records()
    host.clear_writes()
    assert conn.recover() == ()
    with pytest.raises(ReattachError) as caught:
        conn.reattach_hostdevs("vm1")
    assert WORDS in str(caught.value.exceptions[0])
    for call in (
        lambda: conn.prepare_hostdevs(Domain("vm2", [NIC])),
        lambda: conn.detach_device(NIC),
    ):
        with pytest.raises(DeviceInUseError, match="only a reboot frees it"):
            call()
    assert (host.snapshot(), host.ledger.records()) == before
    assert host.writes() == []
    assert host.hanging() == []
    conn.prepare_hostdevs(Domain("vm1", [DISK]))  # others go on
    assert conn.forget_device(NIC).address == NIC
    conn.reattach_hostdevs("vm1")
    assert host.ledger.records() == []


def test_on_the_way_home(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    host.on_write("*/vfio-pci/unbind", value=NIC, crash=True)
    with pytest.raises(ReattachError) as caught:
        conn.reattach_hostdevs("vm1")
    (error,) = caught.value.exceptions
    assert isinstance(error, KernelCrashError)
    (record,) = host.ledger.records()
    assert (record.address, record.op) == (NIC, None)
    assert host.snapshot()[DISK]["kernel_driver"] == "nvme"


PROGRAM = """
import sys
from hostdev_core import Domain, KernelCrashError, open_connection
from hostdev_core.simulated import SimulatedHost
host = SimulatedHost.open(sys.argv[1])
with open_connection("qemu:///system", host=host, worker="worker" in sys.argv) as conn:
    try:
        conn.prepare_hostdevs(Domain("vm1", [sys.argv[2]]))
    except KernelCrashError as error:
        print("crashed", flush=True)
"""


@pytest.mark.parametrize("how", ["alone", "worker"])
def test_a_program_ends_although_a_thread_of_it_never_does(host: SimulatedHost, how: str) -> None:
    crash(host)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, host.root, NIC, how],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "crashed\n"), done.stderr


@pytest.mark.long
def test_the_command_says_it_and_leaves_no_process(host: SimulatedHost) -> None:
    crash(host)
    done = run("prepare", "vm1", NIC, host=host)
    assert done.returncode == 3
    assert WORDS in done.stderr
    assert "only a reboot frees it" in run("status", host=host).stdout
    assert run("recover", host=host).returncode == 3
    assert len(json.loads(run("list", "--json", host=host).stdout)["devices"]) == 2
    for words in (("show", NIC), ("device", "forget", NIC)):
        run(*words, host=host)
    assert run("device", "forget", NIC, "--as-is", host=host).returncode == 0
    assert _processes_of(host) == []
    assert host.hanging() == []


def _processes_of(host: SimulatedHost) -> list[str]:
    """The command lines of other processes that work on this machine."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if f"--host\0{host.root}" in words:
            found.append(words)
    return found


KILLED = """
import os, signal, sys
from hostdev_core import Domain, open_connection
from hostdev_core.simulated import SimulatedHost

_, root, crashed, call, nic = sys.argv
host = SimulatedHost.open(root)

def watch(moment):
    if moment == "before transaction" and os.path.exists(crashed):
        os.kill(os.getpid(), signal.SIGKILL)

host.watch(watch)
with open_connection("qemu:///system", host=host) as conn:
    if call == "reattach":
        conn.reattach_hostdevs("vm1")
    else:
        conn.prepare_hostdevs(Domain("vm1", [nic]))
"""
LATE = "the kernel has not returned in time"


@pytest.mark.parametrize(
    "where", ["*/e1000e/unbind", "home */vfio-pci/unbind", "*/vfio-pci/bind", "home */e1000e/bind"]
)
def test_a_process_that_is_killed_before_it_has_noted_it(
    host: SimulatedHost, registry: Registry, where: str
) -> None:
    """Nobody knows of the crash then: whoever recovers finds a device that does not answer, and says so."""
    going_home, pattern = where.startswith("home "), where.removeprefix("home ")
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        if going_home:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
    host.on_write(pattern, value=NIC, crash=True)
    words = [
        host.root,
        host.path(f"{MEMORY}/crashed"),
        "reattach" if going_home else "prepare",
        NIC,
    ]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    (record,) = host.ledger.records()
    assert (record.op is None, record.stuck) == (False, None)
    host.clear_writes()
    before = host.snapshot()
    limits = Deadlines(attribute=1, unbind=1, bind=1)
    with open_connection("qemu:///system", host=host, registry=registry, deadlines=limits) as conn:
        with pytest.raises(ReattachError) as caught:
            conn.recover()
        (error,) = caught.value.exceptions
        assert isinstance(error, KernelTimeoutError)
        (record,) = host.ledger.records()
        assert LATE in (record.stuck or "")
        assert conn.recover() == ()  # it is in hand: nobody waits for it again
        assert host.ledger.records() == [record]
        assert (host.writes(), host.snapshot()) == ([], before)
        with pytest.raises(DeviceInUseError, match="is at work: recover"):
            conn.prepare_hostdevs(Domain("vm2", [NIC]))
        host.deadlines = Deadlines()
        conn.prepare_hostdevs(Domain("vm2", [DISK]))  # others go on

    def is_home() -> bool:
        host.release()  # a real kernel never lets go of the lock
        return [record.address for record in host.ledger.records()] == [DISK]

    wait_until(is_home)
    assert host.snapshot()[NIC]["kernel_driver"] == "e1000e"
