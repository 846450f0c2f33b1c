"""The ledger's place and file: what is refused, what is kept, what drifts."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    DeviceNotFoundError,
    Domain,
    HostdevError,
    HostdevState,
    KernelError,
    PrepareFlags,
    ReattachError,
    Registry,
    StateError,
    USBHostdev,
    open_connection,
)
from hostdev_core.inventory.drift import find_drift
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, NIC, make_host


def test_reload_reports_what_changed_behind_our_back(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert conn.reload() == ()
    host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", NIC)
    host.unplug(DISK)
    drifts = {drift.address: drift.what for drift in conn.reload()}
    assert drifts == {NIC: "rebound", DISK: "gone"}
    host.add_pci(DISK, id="10de:2204", class_="030000")
    drifts = {drift.address: drift.what for drift in conn.reload()}
    assert drifts == {NIC: "rebound", DISK: "replaced"}
    assert sorted(conn.reattach_hostdevs("vm1")) == [NIC, DISK]


def test_what_is_given_back_meanwhile_has_not_drifted(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    seen = host.ledger.records()
    conn.reattach_hostdevs("vm1")
    assert find_drift(host, seen) == []


def test_what_is_not_recognised_is_left_alone(host: SimulatedHost, conn: Connection) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "uio_pci_generic\n")
    drifted = host.snapshot()
    with pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    (error,) = raised.value.exceptions
    assert isinstance(error, StateError)
    assert "uio_pci_generic" in str(error)
    assert host.snapshot() == drifted | {DISK: before[DISK]}
    (record,) = host.ledger.records()
    assert record.stuck is not None
    assert record.owner is not None
    host.sysfs.write(f"bus/pci/devices/{NIC}/driver_override", "vfio-pci\n")
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


def test_a_detached_device_that_was_replaced_is_not_lent(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.detach_device(NIC)
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="vfio-pci", iommu_group=1)
    before = host.snapshot()
    with pytest.raises(StateError, match="forget"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.snapshot() == before


def test_a_card_that_was_replaced_while_lent_is_not_lent_again(
    host: SimulatedHost, conn: Connection
) -> None:
    host.add_usb("1-1", serial="1")
    devices = [NIC, USBHostdev(port="1-1")]
    conn.prepare_hostdevs(Domain("vm1", devices))
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.unplug("1-1")
    host.add_usb("1-1", serial="2")
    before = host.snapshot()
    for device in devices:
        with pytest.raises(StateError, match="replaced"):
            conn.prepare_hostdevs(Domain("vm1", [device]), PrepareFlags.ALLOW_SAME_OWNER)
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_detached_device_that_was_replaced_is_not_detached_already(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.detach_device(NIC)
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    with pytest.raises(StateError, match="replaced"):
        conn.detach_device(NIC)
    conn.reattach_device(NIC)
    assert host.ledger.records() == []


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
        lambda: conn.prepare_hostdevs(Domain("vm2", [DISK])),
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


def replace_after(host: SimulatedHost, conn: Connection, moment: int) -> list[str]:
    """Another card is plugged in at the address of NIC once the nth write of `conn` has returned."""
    told: list[str] = []

    def watch(what: str) -> None:
        if what.startswith("after write"):
            told.append(what)
            if len(told) == moment:
                host.unplug(NIC)
                host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)

    conn.host.watch(watch)
    return told


def test_a_card_that_is_replaced_in_the_middle_is_not_touched(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    for moment in count(1):
        told = replace_after(host, conn, moment)
        with suppress(KernelError, StateError, DeviceNotFoundError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before
        assert host.ledger.records() == []
        if len(told) < moment:
            break


FIRST, SECOND = "6c8a3f9e-0a3c-4c59-9e65-2f1bd1c3d5a1", "d41b7c02-77e1-4a0e-8a53-0e94c07a9b11"


def boot(host: SimulatedHost, id: str) -> SimulatedHost:
    """The machine in a boot of this id; its devices are left to the test."""
    path = Path(host.path("proc/sys/kernel/random/boot_id"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{id}\n")
    return SimulatedHost.open(host.root)


def test_a_ledger_that_outlives_a_reboot_is_void(
    host: SimulatedHost, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    untouched = host.snapshot()
    with open_connection("qemu:///system", host=boot(host, FIRST), registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.detach_device(DISK)
        assert [d.name for d in conn.get_active_pci_hostdev_list()] == [NIC]
    for device, driver in ((NIC, "e1000e"), (DISK, "nvme")):  # as the next boot binds them
        host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", device)
        host.sysfs.write(f"bus/pci/devices/{device}/driver_override", "\n")
        host.sysfs.write(f"bus/pci/drivers/{driver}/bind", device)
    host.clear_writes()
    again = boot(host, SECOND)
    with open_connection("qemu:///system", host=again, registry=registry) as conn:
        assert conn.get_active_pci_hostdev_list() == conn.get_inactive_pci_hostdev_list() == ()
        assert conn.reload() == conn.reattach_hostdevs("vm1") == conn.recover() == ()
        assert host.writes() == []
        assert "2 records are void" in caplog.text
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
        assert [(r.address, r.owner and r.owner.domain) for r in again.ledger.records()] == [
            (NIC, "vm2")
        ]
        conn.reattach_hostdevs("vm2")
    assert host.snapshot() == untouched


def test_what_a_dead_operation_left_before_a_reboot_is_not_undone(
    host: SimulatedHost, registry: Registry
) -> None:
    before = boot(host, FIRST)
    host.on_write("*/vfio-pci/bind", errno=5)
    host.on_write("*/e1000e/bind", errno=5)
    with open_connection("qemu:///system", host=before, registry=registry) as conn:
        with pytest.raises(HostdevError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert [record.stuck is not None for record in before.ledger.records()] == [True]
    found = host.snapshot()
    host.clear_writes()
    with open_connection("qemu:///system", host=boot(host, SECOND), registry=registry) as conn:
        assert conn.recover() == ()
        conn.prepare_hostdevs(Domain("vm1", [DISK]))
        conn.reattach_hostdevs("vm1")
    assert not [path for path, _ in host.writes() if "e1000e" in path or NIC in path]
    assert host.snapshot() == found


def test_where_the_boot_is_not_known_the_ledger_is_believed(
    host: SimulatedHost, conn: Connection, registry: Registry
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with open_connection("qemu:///system", host=boot(host, FIRST), registry=registry) as other:
        other.prepare_hostdevs(Domain("vm2", [DISK]))
        assert other.reattach_hostdevs("vm1") == (NIC,)
    with open_connection("qemu:///system", host=boot(host, SECOND), registry=registry) as other:
        assert other.get_active_pci_hostdev_list() == ()
    assert [d.name for d in conn.get_active_pci_hostdev_list()] == [DISK]
    conn.reattach_hostdevs("vm2")
