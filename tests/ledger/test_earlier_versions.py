"""A ledger that an earlier version left, with its devices, is read, used and given back.

tests/ledgers has one for each schema, written by that version (make.py).
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    ReattachError,
    StateError,
    open_connection,
)
from hostdev_core.model.record import Phase
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import run
from tests.ledgers.make import CARDS, STICK, connect
from tests.sample import DISK, NIC, SOUND

FOLDER = Path(__file__).parents[1] / "ledgers"
LEDGERS = sorted(FOLDER.glob("schema-*.sql"))
LATE = "0000:07:00.0"
FOREIGN, UNREAD = "0000:08:00.0", "0000:09:00.0"
# As the statements of schema 1 were when it was released: a process of then may still be running.
OLD_UPDATE = (
    "UPDATE records SET phase = ?, op = ? WHERE kind = ? AND address = ? AND phase = ? AND op IS ?"
)
OLD_COLUMNS = (
    "kind", "address", "phase", "backend", "op", "home", "listed", "handed", "confirmed", "stub", "steps",
    "modalias", "revision", "inode", "iommu_group", "physfn", "controller", "usb", "allowed", "since",
    "stuck", "owner_domain", "owner_driver", "owner_uri", "owner_uuid", "found_driver", "found_override",
    "found_power", "found_module",
)  # fmt: skip


Old = tuple[SimulatedHost, dict[str, Any]]


@pytest.fixture(params=LEDGERS, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    """The machine as that version left it, and the devices as it had found them."""
    machine = json.loads(request.param.with_suffix(".json").read_text())
    host = SimulatedHost.create(tmp_path / "machine")
    host.add_pci("0000:00:14.0", id="8086:a36d", class_="0c0330", kernel_driver="xhci_hcd")
    host.add_usb(**STICK, device=5, kernel_driver="usb-storage")  # type: ignore[arg-type]
    for address, (id_, driver, group, _) in CARDS.items():
        now = machine["present"][address]
        override = None if now["driver_override"] == "(null)" else now["driver_override"]
        host.add_driver(driver, module=driver, ids=(id_,))
        host.add_pci(
            address,
            id=id_,
            kernel_driver=now["kernel_driver"],
            iommu_group=group,
            driver_override=override,
            power_control=now["power_control"],
        )
    os.makedirs(host.state_dir, mode=0o700)
    with closing(sqlite3.connect(host.ledger.path)) as ledger:
        ledger.executescript(request.param.read_text())
        for address in CARDS:  # this machine's own
            inode = host.sysfs.inode(f"bus/pci/devices/{address}")
            ledger.execute("UPDATE records SET inode = ? WHERE address = ?", (inode, address))
        ledger.commit()
    found = {k: v for k, v in machine["found"].items() if k in CARDS}
    return host, found


@pytest.fixture
def conn(old: Old) -> Iterator[Connection]:
    with connect(old[0]) as conn:
        yield conn


def devices(host: SimulatedHost) -> dict[str, Any]:
    return {name: row for name, row in host.snapshot().items() if name in CARDS}


def test_each_record_says_what_it_said(old: Old, conn: Connection) -> None:
    host, _ = old
    known = {r.address: r for r in host.ledger.records()}
    said = {
        address: (str(r.phase), r.owner.domain if r.owner else None, r.home, r.handed, r.confirmed)
        for address, r in known.items()
    }
    assert said == {
        "0000:01:00.0": ("active", "vm1", "host", True, True),
        "1-1": ("active", "vm1", "host", True, True),
        "0000:02:00.0": ("inactive", None, "host", True, True),
        "0000:03:00.0": ("active", "vm1", "host", True, True),
        "0000:03:00.1": ("active", "vm1", "host", False, True),
        "0000:04:00.0": ("active", "vm2", "host", True, True),
        "0000:04:00.1": ("releasing", "vm2", "host", False, True),
        "0000:05:00.0": ("active", "vm2", "inactive", True, True),
        "0000:06:00.0": ("preparing", "vm4", "host", True, True),
        "0000:07:00.0": ("releasing", "vm3", "host", True, True),
        "0000:08:00.0": ("releasing", "vm3", "host", True, True),
        "0000:09:00.0": ("preparing", "vm5", "host", True, False),
    }
    owner = known[NIC].owner
    assert owner is not None
    assert (owner.uuid, known[NIC].allowed) == ("6c8a3f9e-0a3c-4c59-9e65-2f1bd1c3d5a1", "network")
    assert "foreign" in (known[FOREIGN].stuck or "")
    assert conn.reload() == ()
    done = run("status", host=host)
    assert done.returncode == 3
    assert "left over" in done.stdout


def test_all_of_it_is_given_back(old: Old, conn: Connection) -> None:
    host, found = old
    with pytest.raises(ReattachError, match=f"not given back: {FOREIGN}"):
        conn.recover()
    host.sysfs.write(f"bus/pci/devices/{FOREIGN}/driver_override", "vfio-pci")
    assert set(conn.recover()) == {FOREIGN}
    conn.reattach_hostdevs(Domain("vm1", uuid="6c8a3f9e-0a3c-4c59-9e65-2f1bd1c3d5a1"))
    conn.reattach_hostdevs("vm2")
    assert {d.name for d in conn.get_inactive_pci_hostdev_list()} == {DISK, "0000:05:00.0"}
    conn.reattach_device(DISK)
    conn.reattach_device("05:00.0")
    assert host.ledger.records() == []
    assert devices(host) == found


def test_it_is_used_as_before(old: Old, conn: Connection) -> None:
    """A device of the list is lent, a sibling handed over; what is lent stays with its domain."""
    host, _ = old
    with pytest.raises(DeviceInUseError, match="vm1"):
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
    conn.prepare_hostdevs(Domain("vm6", [DISK, UNREAD]))
    conn.prepare_hostdevs(Domain("vm1", [SOUND], uuid="6c8a3f9e-0a3c-4c59-9e65-2f1bd1c3d5a1"))
    known = {r.address: r for r in host.ledger.records()}
    assert known[SOUND].handed
    assert known[DISK].home == "inactive"
    assert known[DISK].found.kernel_driver == "nvme"
    owner = known[UNREAD].owner
    assert owner is not None
    assert owner.domain == "vm6"


@contextmanager
def at_work(host: SimulatedHost, op: str) -> Generator[None]:
    """A process of that version goes on with what it had begun."""
    os.makedirs(f"{host.state_dir}/op", mode=0o700, exist_ok=True)
    with open(f"{host.state_dir}/op/{op}", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("reattach vm3 (pid 1)")
        lock.flush()
        yield


def test_a_worker_of_that_version_that_is_still_running(old: Old, conn: Connection) -> None:
    """Its record is left to it, and what it writes next arrives."""
    host, _ = old
    (record,) = (r for r in host.ledger.records() if r.address == LATE)
    assert record.op is not None
    with at_work(host, record.op):
        conn.prepare_hostdevs(Domain("vm6", [DISK]))  # the ledger has been changed by this version
        with pytest.raises(DeviceInUseError, match="at work: reattach vm3"):
            conn.prepare_hostdevs(Domain("vm6", [LATE]))
        with pytest.raises(ReattachError):
            conn.recover()
        assert record in host.ledger.records()
        with closing(sqlite3.connect(host.ledger.path)) as ledger:
            ((sql, version),) = ledger.execute(
                "SELECT sql, user_version FROM sqlite_schema, pragma_user_version WHERE sql IS NOT NULL"
            )
            assert (version, sql) == (
                1, f"CREATE TABLE records ({', '.join(OLD_COLUMNS)}, PRIMARY KEY (kind, address))"
            )  # fmt: skip
            row = ("active", None, "pci", LATE, "releasing", record.op)
            assert ledger.execute(OLD_UPDATE, row).rowcount == 1
            ledger.commit()
    (now,) = (r for r in host.ledger.records() if r.address == LATE)
    assert (now.phase, now.op) == (Phase.ACTIVE, None)


def test_a_newer_ledger_is_left_as_it_is(
    old: Old,
) -> None:
    host, _ = old
    with closing(sqlite3.connect(host.ledger.path)) as ledger:
        ledger.execute("PRAGMA user_version = 99")
    before = Path(host.ledger.path).read_bytes()
    with (
        open_connection("qemu:///system", host=host) as conn,
        pytest.raises(StateError, match=r"schema version 99.*use the hostdev that wrote it"),
    ):
        conn.prepare_hostdevs(Domain("vm6", [DISK]))
    assert run("status", host=host).returncode == 1
    assert Path(host.ledger.path).read_bytes() == before
