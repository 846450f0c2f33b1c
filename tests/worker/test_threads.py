"""A worker of a program with threads takes none of their locks along, and nothing that is open."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import clean_environment
from tests.helpers.processes import children, is_told_to_stop, wait_until
from tests.sample import make_host

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return clean_environment(PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]))


@pytest.fixture(autouse=True)
def another_thread() -> Iterator[None]:
    """However these tests are run, their process is one of several threads."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.long
def test_threads_that_print_log_import_and_hold_locks(tmp_path: Path) -> None:
    check_calls(tmp_path, 10)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("program", range(4))
def test_a_thousand_calls_beside_threads(tmp_path: Path, program: int) -> None:
    check_calls(tmp_path, 250)


def check_calls(tmp_path: Path, calls: int) -> None:
    """A program of threads comes through so many calls."""
    make_host(tmp_path / "host")
    program = Path(__file__).with_name("many_threads.py")
    ended = subprocess.run(
        [sys.executable, program, tmp_path, str(calls)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100 + 3 * calls,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith(f"done {calls}\n")


HOLDER = """
import os, socket, sys, threading
from tests.helpers.lend_apart import lend_apart
kept = socket.create_server(("127.0.0.1", 0))
log = open(sys.argv[2], "w")
os.set_inheritable(kept.fileno(), True)
os.set_inheritable(log.fileno(), True)
if sys.argv[3] == "threads":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
lend_apart(sys.argv[1])
"""


@contextmanager
def holder(host: SimulatedHost, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDER, host.root, *words]
    with subprocess.Popen(command, env=environment()) as caller:
        try:
            yield caller
        finally:
            caller.kill()


@pytest.mark.parametrize("how", ["alone", "threads"])
def test_a_late_worker_has_nothing_open_of_its_callers(
    host: SimulatedHost, tmp_path: Path, how: str
) -> None:
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    log = str(tmp_path / "log")
    with holder(host, log, how) as caller:
        host.wait_hanging()
        (worker,) = children(caller.pid)
    caller.wait()
    try:
        folder = f"/proc/{worker}/fd"
        open_there: set[str] = set()
        for fd in os.listdir(folder):
            with suppress(FileNotFoundError):  # it is at work, and closes some of them
                open_there.add(os.readlink(f"{folder}/{fd}"))
        assert not [name for name in open_there if name.startswith("socket:") or name == log]
        assert any(name.startswith(host.state_dir) for name in open_there)  # it is at work
    finally:
        host.release()
    wait_until(lambda: [r.phase for r in host.ledger.records()] == ["active", "active"])


@pytest.mark.parametrize("how", ["alone", "threads"])
def test_a_program_of_one_thread_alone_is_forked(
    host: SimulatedHost, tmp_path: Path, how: str
) -> None:
    """A fork would find each lock taken that another thread had; a new interpreter has no such locks."""
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    with holder(host, str(tmp_path / "log"), how) as caller:
        host.wait_hanging()
        (worker,) = children(caller.pid)
        words = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (caller.pid, worker)]
        assert (words[0] == words[1]) == (how == "alone")
    host.release()
    wait_until(lambda: [r.phase for r in host.ledger.records()] == ["active", "active"])


THREADED = """
import sys, threading
from tests.helpers.lend_apart import lend_apart
threading.Thread(target=threading.Event().wait, daemon=True).start()
lend_apart(sys.argv[1])
"""

HASTY = """
import os, signal, sys, threading
from tests.helpers.lend_apart import lend_apart

def interrupt():
    while not open(f"/proc/self/task/{os.getpid()}/children").read():
        pass
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
lend_apart(sys.argv[1])
"""


@pytest.mark.parametrize("number", range(4))
def test_a_program_is_interrupted_while_its_worker_is_started(
    host: SimulatedHost, number: int
) -> None:
    """Another thread gets the signal: the worker has begun, and nobody knows its pid yet."""
    before, mark = host.snapshot(), f"HOSTDEV_TEST_MARK={host.root}"
    done = subprocess.run(
        [sys.executable, "-c", HASTY, host.root],
        env={**environment(), "HOSTDEV_TEST_MARK": host.root},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"KeyboardInterrupt" in done.stderr
    wait_until(lambda: not workers(mark))
    assert host.snapshot() == before
    assert host.ledger.records() == []


def workers(mark: str) -> list[str]:
    """The processes with this in their environment, and their command lines."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().decode("utf-8", "replace"))
    return found


@pytest.mark.parametrize("when", ["it starts", "it is at work"])
def test_an_interrupted_program_with_threads_undoes(host: SimulatedHost, when: str) -> None:
    before = host.snapshot()
    host.on_write("bus/pci/drivers/e1000e/unbind", hang=True)
    command = [sys.executable, "-c", THREADED, host.root]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as caller:
        wait_until(lambda: children(caller.pid))
        if when == "it is at work":
            host.wait_hanging()
        caller.send_signal(signal.SIGINT)
        if when == "it is at work":
            wait_until(lambda: is_told_to_stop(caller.pid))

        def has_ended() -> bool:
            host.release()  # it may come to the write only now
            return caller.poll() is not None

        wait_until(has_ended)
        assert b"KeyboardInterrupt" in caller.communicate(timeout=60)[1]
    assert host.snapshot() == before
    assert host.ledger.records() == []


CLOSED = """
import os, sys, threading
from tests.helpers.lend_apart import lend_apart
if sys.argv[2] == "threads":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
for fd in (0, 1, 2):
    os.close(fd)
lend_apart(sys.argv[1])
"""


@pytest.mark.parametrize("how", ["alone", "threads"])
def test_a_program_without_standard_streams(host: SimulatedHost, how: str) -> None:
    """Descriptors 0 to 2 are free there, and no pipe of a worker's."""
    command = [sys.executable, "-c", CLOSED, host.root, how]
    assert subprocess.run(command, env=environment(), timeout=60).returncode == 0
    assert [record.phase for record in host.ledger.records()] == ["active", "active"]


PATCHED = """
{}
from hostdev_core import Domain, StateError, open_connection
from hostdev_core.simulated import SimulatedHost
import sys
host = SimulatedHost.open(sys.argv[1])
for worker in (True, False):
    with open_connection("qemu:///system", host=host, worker=worker) as conn:
        assert len(conn.list_devices()) == 2
        try:
            conn.prepare_hostdevs(Domain("vm1", ["0000:01:00.0"]))
        except StateError as error:
            print(error)
"""


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("gevent", "from gevent import monkey; monkey.patch_all()"),
        ("eventlet", "import eventlet; eventlet.monkey_patch()"),
    ],
)
def test_greenlets_are_no_threads(host: SimulatedHost, name: str, patch: str) -> None:
    before = host.snapshot()
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PATCHED.format(patch), host.root],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"{name} has put greenlets in the place of") == 2
    assert ended.stdout.count("nothing was changed. Run the `hostdev` command") == 2
    assert host.snapshot() == before
    assert host.writes() == []
