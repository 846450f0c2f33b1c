"""The ledger's file and rows as somebody else may have left them: refused and kept, never obeyed."""

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core import Connection, Domain, PCIAddress, StateError, UsedBy
from hostdev_core.ledger.store import Ledger
from hostdev_core.model.plan import steps_from_json
from hostdev_core.model.record import COLUMNS, Phase, Record
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU
from tests.hostile.command import Answer, attempt, call, quick, slow, texts
from tests.sample import NIC

STICK = "1-1"
DEEP = "[" * 100_000
values = (
    texts.map(lambda text: text.encode("utf-8", "replace").decode())
    | st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=8)
    | st.sampled_from(
        [DEEP, "[[1, 2, 3]]", '[["a", "b"]]', '{"a": 1}', '[["a", "b", [1]]]', "null"]
    )
    | st.sampled_from(["../../etc", "/etc/passwd", "active", "releasing", "1-1", "0000:01:00.0"])
)


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_usb(STICK, id="046d:c077", product="Mouse")
    return host


def everything(host: SimulatedHost) -> list[Answer]:
    """All that reads the ledger, in every way there is."""
    lines = (
        ("list",), ("show", NIC), ("status", "--json"), (*QEMU, "plan", "vm9", NIC),
        (*QEMU, "recover"), (*QEMU, "reattach", "vm1"), (*QEMU, "device", "forget", NIC),
    )  # fmt: skip
    return [call(*line, host=host) for line in lines]


changes = st.lists(st.tuples(st.sampled_from(COLUMNS), values), min_size=1, max_size=3)


def change_row(path: str, changed: list[tuple[str, Any]]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for column, value in changed:
            connection.execute(f"UPDATE records SET {column} = ? WHERE kind IS 'pci'", (value,))


@quick
@given(changes)
def test_any_value_in_any_column_is_read_or_refused(
    tmp_path: Path, changed: list[tuple[str, Any]]
) -> None:
    ledger = Ledger(str(tmp_path / "state"))
    Path(ledger.path).unlink(missing_ok=True)
    owner = UsedBy("vm1", "qemu", "qemu:///system")
    record = Record("pci", NIC, Phase.ACTIVE, "qemu", owner=owner, confirmed=True)
    with ledger.transaction() as transaction:
        transaction.insert(record)
    change_row(ledger.path, changed)
    for known in attempt(ledger.records, StateError) or ():
        assert PCIAddress.parse(known.address)
        assert steps_from_json(known.steps) == ()
        assert {"/", "\x00", ".."}.isdisjoint({known.op, known.stub, *known.found})


@pytest.mark.long
@slow
@given(changes)
def test_the_command_over_any_value_in_any_column(
    tmp_path_factory: pytest.TempPathFactory, changed: list[tuple[str, Any]]
) -> None:
    host = SimulatedHost.create(tmp_path_factory.mktemp("ledger") / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    call(*QEMU, "prepare", "vm1", NIC, host=host)
    change_row(host.ledger.path, changed)
    for line in (("list",), ("status", "--json"), (*QEMU, "reattach", "vm1"), (*QEMU, "recover")):
        call(*line, host=host)
    assert os.listdir(Path(host.root).parent) == ["host"]
    assert {*os.listdir(host.root)} == {".kernel", "dev", "etc", "lib", "proc", "run", "sys"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("op", "../../../etc/passwd"), ("op", ".."), ("op", "a\x00b"), ("op", ""), ("op", 7),
        ("address", "../../.."), ("address", "01:00.0"), ("kind", "scsi"), ("phase", "borrowed"),
        ("stub", "../../../x"), ("found_module", "/tmp/evil.ko"), ("found_driver", "."),
        ("steps", DEEP), ("steps", "[[]]"), ("steps", None), ("inode", -1), ("inode", "x"),
        ("iommu_group", 2**40), ("since", float("inf")), ("since", None), ("since", -1.0),
        ("owner_driver", None), ("owner_uri", b"\xff"), ("modalias", b"x"), ("handed", "yes"),
        ("confirmed", 0), ("owner_domain", None), ("phase", "inactive"),
    ],
)  # fmt: skip
def test_a_row_that_is_none_of_hostdevs_is_refused_and_kept(
    host: SimulatedHost, conn: Connection, column: str, value: object
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    connection = sqlite3.connect(host.ledger.path, isolation_level=None)
    connection.execute(f"UPDATE records SET {column} = ?", (value,))
    connection.close()
    before, content = host.snapshot(), Path(host.ledger.path).read_bytes()
    for work in (
        host.ledger.records,
        conn.recover,
        lambda: conn.reattach_hostdevs("vm1"),
        lambda: conn.forget_device(NIC),
        lambda: conn.prepare_hostdevs(Domain("vm2", [NIC])),
    ):
        with pytest.raises(StateError, match="not hostdev's"):
            work()
    assert host.ledger.path in call("status", host=host).err
    assert host.snapshot() == before
    assert Path(host.ledger.path).read_bytes() == content


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END",
        "CREATE TRIGGER t BEFORE DELETE ON records BEGIN SELECT RAISE(IGNORE); END",
        "ALTER TABLE records RENAME TO r; CREATE VIEW records AS SELECT * FROM r",
        "DROP TABLE records",
        "ALTER TABLE records ADD COLUMN extra",
        "ALTER TABLE records DROP COLUMN stuck",
        "CREATE TABLE another (x)",
        "CREATE INDEX i ON records (stuck)",
    ],
)
def test_a_schema_that_is_none_of_hostdevs_is_refused_and_kept(
    host: SimulatedHost, conn: Connection, script: str
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    connection = sqlite3.connect(host.ledger.path, isolation_level=None)
    connection.executescript(script)
    connection.close()
    before, content = host.snapshot(), Path(host.ledger.path).read_bytes()
    for work in (host.ledger.records, conn.recover, lambda: conn.reattach_hostdevs("vm1")):
        with pytest.raises(StateError, match="left as it is"):
            work()
    everything(host)
    assert host.snapshot() == before
    assert Path(host.ledger.path).read_bytes() == content


def _large(path: Path) -> None:
    os.truncate(path, 1 << 30)


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "harm",
    [_large, _link, _pipe, _folder, lambda path: path.chmod(0o666), lambda path: os.chown(path, 1, 1)],
    ids=["large", "link", "pipe", "folder", "writable", "owner"],
)  # fmt: skip
def test_a_file_that_cannot_be_trusted_is_refused(
    host: SimulatedHost, conn: Connection, harm: Callable[[Path], object]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    harm(Path(host.ledger.path))
    before = host.snapshot()
    for work in (host.ledger.records, conn.recover, lambda: conn.reattach_hostdevs("vm1")):
        with pytest.raises(StateError, match=host.ledger.path):
            work()
    assert "unknown" in call("list", host=host).out
    everything(host)
    assert host.snapshot() == before


@pytest.mark.parametrize("place", ["state", "op"])
@pytest.mark.parametrize("harm", ["link", "file", "writable", "owner", "exchangeable"])
def test_a_directory_that_cannot_be_trusted_is_refused(
    host: SimulatedHost, conn: Connection, place: str, harm: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    folder = Path(host.state_dir) / ("" if place == "state" else "op")
    folder.mkdir(parents=True, mode=0o700)
    Path(host.state_dir).chmod(0o700)
    if harm == "link":
        folder.rename(folder.with_name("elsewhere"))
        folder.symlink_to("elsewhere")
    elif harm == "file":
        folder.rmdir()
        folder.write_text("")
    elif harm == "owner":
        os.chown(folder, 1, 1)
    else:
        (folder if harm == "writable" else folder.parent).chmod(0o777)
    before = host.snapshot()
    with pytest.raises(StateError, match=host.state_dir):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    everything(host)
    assert host.snapshot() == before
    assert host.writes() == []


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        here = os.open(path.parent, os.O_RDONLY)
        door.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.write_bytes(b"\x1b[31m\xff\x00\n" * 9),
        lambda path: path.write_bytes(b"x" * 10_000_000),
        os.mkfifo,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/etc/passwd"),
        _socket,
    ],
    ids=["escapes", "large", "pipe", "folder", "link", "socket"],
)
def test_anything_in_the_place_of_a_lock(
    host: SimulatedHost, conn: Connection, put: Callable[[Path], object]
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    lock = Path(host.state_dir) / "op" / "strange"
    put(lock)
    connection = sqlite3.connect(host.ledger.path, isolation_level=None)
    connection.execute("UPDATE records SET op = 'strange', phase = 'releasing'")
    connection.close()
    for answer in everything(host):
        assert len(answer.out) < 20_000
        assert "root:" not in answer.out
    attempt(lambda: conn.reattach_hostdevs("vm1"))
    assert Path("/etc/passwd").exists()
