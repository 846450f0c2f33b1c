"""The state directory and the ledger's file: who may use them, what is refused, what is kept."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    Domain,
    HostdevState,
    Registry,
    StateError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC, make_host


def test_the_state_directory_is_private(host: SimulatedHost, conn: Connection) -> None:
    HostdevState(host).initialize()
    HostdevState(host).initialize()
    assert os.stat(host.state_dir).st_mode & 0o777 == 0o700
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    assert os.stat(host.state_dir).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("wrong", ["symlink", "file", "writable"])
def test_a_state_directory_that_cannot_be_trusted(
    host: SimulatedHost, conn: Connection, tmp_path: Path, wrong: str
) -> None:
    state_dir = Path(host.state_dir)
    if wrong == "symlink":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        state_dir.symlink_to(tmp_path / "elsewhere")
    elif wrong == "file":
        state_dir.write_text("")
    else:
        state_dir.mkdir()
        state_dir.chmod(0o777)
    before = host.snapshot()
    with pytest.raises(StateError, match=str(state_dir)):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with pytest.raises(StateError):
        conn.get_active_pci_hostdev_list()
    assert host.snapshot() == before
    assert host.writes() == []


AS_NOBODY = """
import os, sys
import hostdev_qemu
from hostdev_core import *
from hostdev_core.simulated import SimulatedHost
registry = Registry(); registry.register(hostdev_qemu)
conn = open_connection("qemu:///system", host=SimulatedHost.open(sys.argv[1]), registry=registry)
conn.prepare_hostdevs(Domain("vm9", ["0000:02:00.0"]))  # all is imported now
conn.reattach_hostdevs("vm9")
conn.list_devices()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for call in (
    lambda: conn.get_active_pci_hostdev_list(),
    lambda: conn.prepare_hostdevs(Domain("vm1", ["0000:02:00.0"])),
    lambda: conn.reattach_hostdevs("vm1"),
    lambda: conn.detach_device("0000:02:00.0"),
):
    try:
        call()
        print("done")
    except NotPermittedError as error:
        print("refused")
print([device.name for device in conn.list_devices()], conn.list_devices()[0].used_by)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_without_the_right_to_the_ledger(public: Path, registry: Registry) -> None:
    host = make_host(public / "host")
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    before = host.snapshot()
    answer = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, host.root], capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.splitlines() == [*["refused"] * 4, f"['{NIC}', '{DISK}'] None"], (
        answer.stderr
    )
    assert host.snapshot() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="the real host is somebody else's")
def test_the_real_host_is_for_root(tmp_path: Path) -> None:
    program = (
        "from hostdev_core import Host, NotPermittedError\n"
        "import os; os.setuid(65534)\n"
        "try: Host('/').check_permitted()\n"
        "except NotPermittedError as error: print(isinstance(error, PermissionError))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.stdout == "True\n", answer.stderr


@pytest.mark.parametrize("damage", ["text", "newer", "row"])
def test_a_ledger_that_cannot_be_used_is_kept(
    host: SimulatedHost, conn: Connection, damage: str
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    path = Path(host.ledger.path)
    if damage == "text":
        path.write_bytes(b"this is no database" * 100)
    else:
        with sqlite3.connect(path) as connection:
            if damage == "newer":
                connection.execute("PRAGMA user_version = 99")
            else:
                connection.execute("UPDATE records SET phase = 'borrowed'")
        connection.close()
    content, before = path.read_bytes(), host.snapshot()
    for call in (
        conn.get_active_pci_hostdev_list,
        lambda: conn.prepare_hostdevs(Domain("vm2", [NIC])),
        lambda: conn.reattach_hostdevs("vm1"),
    ):
        with pytest.raises(StateError):
            call()
    assert path.read_bytes() == content
    assert host.snapshot() == before


ON_A_FULL_DISK = """
import os, subprocess, sys
import hostdev_qemu
from hostdev_core import *
from hostdev_core.simulated import SimulatedHost
host = SimulatedHost.open(sys.argv[1])
os.makedirs(host.state_dir, mode=0o700)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", host.state_dir], check=True)
registry = Registry(); registry.register(hostdev_qemu)
conn = open_connection("qemu:///system", host=host, registry=registry)
HostdevState(host).initialize()
filler = os.path.join(host.state_dir, "filler")
with open(filler, "wb", buffering=0) as file:
    try:
        while True: file.write(bytes(4096))
    except OSError: pass
before = host.snapshot()
try:
    conn.prepare_hostdevs(Domain("vm1", [sys.argv[2]]))
except HostdevError as error:
    print(type(error).__name__, "full" in str(error) or "No space" in str(error))
print(host.snapshot() == before, host.writes(), host.ledger.records())
os.unlink(filler)
print(len(conn.prepare_hostdevs(Domain("vm1", [sys.argv[2]]))), conn.reattach_hostdevs("vm1"))
"""


def test_a_full_disk_refuses_before_anything_is_changed(host: SimulatedHost) -> None:
    """On a real one; the harness lets the ledger be full at every later moment."""
    mount = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", host.root]
    if not shutil.which(mount[0]) or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("who runs this may not mount a small file system")
    answer = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", ON_A_FULL_DISK, host.root, NIC],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.stdout.splitlines()[1:] == ["True [] []", f"1 ('{NIC}',)"], answer.stderr
    assert answer.stdout.splitlines()[0] in {"StateError True", "NotPermittedError True"}


LOCKER = """
import fcntl, os, sqlite3, sys, time
path, what = sys.argv[1:]
if what == "the database":
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
else:
    turn = os.open(os.path.join(os.path.dirname(path), "turn"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(turn, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("what", ["the database", "the turn"])
def test_a_ledger_that_stays_locked_names_who_keeps_it(
    host: SimulatedHost, registry: Registry, what: str
) -> None:
    """A process may be stopped before its transaction has begun, too."""
    host.ledger.create()
    before = host.snapshot()
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, host.ledger.path, what], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            other = SimulatedHost.open(host.root, deadlines=Deadlines(ledger=0.3))
            conn = open_connection("qemu:///system", host=other, registry=registry)
            with conn, pytest.raises(StateError, match=rf"by \S+ \(pid {process.pid}\)$"):
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
        finally:
            process.kill()
    assert host.snapshot() == before


def test_cleanup_removes_dead_operations_only(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    dead = Path(host.state_dir, "op", "00000000000000000000000000000000")
    dead.write_text("prepare vm9 (pid 1)")
    HostdevState(host).cleanup()
    assert not dead.exists()
    assert [device.name for device in HostdevState(host).active_pci] == [NIC]
    conn.reattach_hostdevs("vm1")


def test_another_state_directory_is_another_state(
    host: SimulatedHost, conn: Connection, registry: Registry, tmp_path: Path
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    private = SimulatedHost.open(host.root)
    private.state_dir = str(tmp_path / "private")
    with open_connection("qemu:///system", host=private, registry=registry) as other:
        assert other.get_active_pci_hostdev_list() == ()
    conn.reattach_hostdevs("vm1")
