"""What the log says of prepares and returns on a simulated host."""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hostdev_audit
import hostdev_test
from hostdev_core import (
    Connection,
    Domain,
    KernelError,
    PCIDevice,
    PluginError,
    ReattachError,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.testing import SimulatedHost, make_sample

EVENTS = ["lent", "returning", "returned"]
NIC, OTHER_NIC, STICK = "0000:01:00.0", "0000:02:00.0", "1-3"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedHost:
    monkeypatch.delenv("HOSTDEV_AUDIT_LOG", raising=False)
    return make_sample(tmp_path / "host")


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(hostdev_test, name="test")
    registry.register(hostdev_audit.plugin, name="audit")
    return registry


@pytest.fixture
def conn(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection(f"test://{host.root}", registry=registry) as conn:
        yield conn


def default_path(host: SimulatedHost) -> Path:
    return Path(host.path("var/log/hostdev/audit.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def addresses(line: dict[str, Any]) -> list[str]:
    return [device["address"] for device in line["devices"]]


def test_a_loan_leaves_a_line_at_each_end(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC, STICK], uuid="c2a1"))
    conn.reattach_hostdevs("vm1")

    lent, returning, returned = lines(default_path(host))
    assert [lent["event"], returning["event"], returned["event"]] == EVENTS
    for line in (lent, returning, returned):
        assert (line["domain"], line["driver"], line["uri"]) == ("vm1", "test", conn.uri)
        assert addresses(line) == [NIC, STICK]
        assert (line["uid"], line["pid"]) == (os.getuid(), os.getpid())
    assert lent["uuid"] == "c2a1"
    assert lent["devices"][1] == {"kind": "usb", "address": STICK, "ids": "0951:1666"}
    assert all(0 <= device["seconds"] < 60 for device in returned["devices"])


def test_each_device_has_its_own_duration(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    log = default_path(host)
    line = lines(log)[0] | {"time": "2001-01-01T00:00:00+00:00"}
    log.write_text(json.dumps(line) + "\n")
    conn.prepare_hostdevs(Domain("vm1", [OTHER_NIC]))
    conn.reattach_hostdevs("vm1")

    seconds = {d["address"]: d["seconds"] for d in lines(log)[-1]["devices"]}
    assert seconds[NIC] > 1e8
    assert seconds[OTHER_NIC] < 60


def test_a_duration_that_no_line_knows_is_null(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    default_path(host).unlink()
    conn.reattach_hostdevs("vm1")
    assert lines(default_path(host))[-1]["devices"][0]["seconds"] is None


def test_a_former_loan_is_not_counted(host: SimulatedHost, conn: Connection) -> None:
    conn.detach_device(NIC)
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    conn.reattach_device(NIC)

    entries = lines(default_path(host))
    assert [line["event"] for line in entries] == ["detached", *EVENTS, *EVENTS[1:]]
    assert [line["domain"] for line in entries] == [None, "vm1", "vm1", "vm1", None, None]
    assert entries[5]["devices"][0]["seconds"] >= entries[3]["devices"][0]["seconds"]


def test_a_failed_prepare_says_why(host: SimulatedHost, conn: Connection) -> None:
    host.on_write("*/vfio-pci/bind", errno=errno.ENODEV)
    with pytest.raises(KernelError):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))

    (line,) = lines(default_path(host))
    assert (line["event"], line["domain"], addresses(line)) == ("prepare_failed", "vm1", [NIC])
    assert line["error"].startswith("KernelError: ")


def test_what_another_plugin_takes_back_is_told(
    host: SimulatedHost, conn: Connection, registry: Registry
) -> None:
    class Objection:
        @hookimpl(trylast=True)
        def hostdev_after_prepare(self) -> None:
            raise RuntimeError("not today")

    registry.register(Objection())
    with pytest.raises(PluginError):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert [line["event"] for line in lines(default_path(host))] == ["lent", "prepare_failed"]


def test_what_did_not_return_is_missing(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC, OTHER_NIC]))
    host.on_write("*/e1000e/bind", value=NIC, errno=errno.EIO)
    with pytest.raises(ReattachError):
        conn.reattach_hostdevs("vm1")
    conn.reattach_hostdevs("vm1")

    _, *entries = lines(default_path(host))
    assert [(line["event"], addresses(line)) for line in entries] == [
        ("returning", [NIC, OTHER_NIC]),
        ("returned", [OTHER_NIC]),
        ("not_returned", [NIC]),
        ("returning", [NIC]),
        ("returned", [NIC]),
    ]
    assert entries[-1]["devices"][0]["seconds"] is not None


def test_a_running_machine_keeps_its_device(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with host.hold(NIC), pytest.raises(ReattachError):
        conn.reattach_hostdevs("vm1")
    lent, kept = lines(default_path(host))
    assert (lent["event"], kept["event"], addresses(kept)) == ("lent", "not_returned", [NIC])
    assert "held by" in kept["error"]


def test_a_refusal_leaves_no_line(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with pytest.raises(Exception, match="in use"):
        conn.prepare_hostdevs(Domain("vm2", [NIC]))
    assert len(lines(default_path(host))) == 1


def test_a_log_that_cannot_be_written_stops_nothing(
    host: SimulatedHost,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_LOG", "/proc/no/such/file")
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert "lent was not written to /proc/no/such/file" in caplog.text


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_only_a_regular_file_is_written(
    kind: str,
    tmp_path: Path,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "log"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    monkeypatch.setenv("HOSTDEV_AUDIT_LOG", str(path))
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    assert "lent was not written" in caplog.text
    assert not (tmp_path / "elsewhere").exists()


def test_the_environment_names_the_file(
    tmp_path: Path, host: SimulatedHost, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    monkeypatch.setenv("HOSTDEV_AUDIT_LOG", str(path))
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert lines(path)[0]["event"] == "lent"
    assert not default_path(host).exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_line_after_a_torn_one_starts_anew(host: SimulatedHost, conn: Connection) -> None:
    log = default_path(host)
    log.parent.mkdir(parents=True)
    log.write_text('{"event": "le')
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    conn.reattach_hostdevs("vm1")
    torn, lent, _, returned = log.read_text().splitlines()
    assert torn == '{"event": "le'
    assert json.loads(lent)["event"] == "lent"
    assert json.loads(returned)["devices"][0]["seconds"] is not None


def test_lines_that_are_none_of_ours_are_passed_over(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    time = "2001-01-01T00:00:00"  # without a zone
    foreign: list[object] = [
        *([], 1, {"time": time}, {"time": 5}, {"time": time, "devices": [3, {}]}),
        {"time": time, "devices": [{"kind": [], "address": {}}]},
    ]
    with default_path(host).open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in foreign)
        file.write("\n\xff not JSON\n")
    conn.reattach_hostdevs("vm1")
    assert json.loads(default_path(host).read_text().splitlines()[-1])["event"] == "returned"


WRITER = """
import sys
from hostdev_audit.log import AuditLog
while True:
    AuditLog(sys.argv[1]).write({"event": "x" * 9000, "time": "2001-01-01T00:00:00+00:00"})
"""


def test_killed_processes_leave_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(path)]
        writers = [subprocess.Popen(command) for _ in range(3)]
        size = path.stat().st_size if path.exists() else 0
        while not path.exists() or path.stat().st_size < size + 500_000:
            assert all(writer.poll() is None for writer in writers)
        for writer in writers:
            writer.kill()
            writer.wait()
    data = [line for line in path.read_text().splitlines() if line]
    whole = [line for line in data if line.startswith('{"event": "xxx') and line.endswith("}")]
    assert len(data) - len(whole) <= 9  # at most one cut off for each kill, and no two joined
    assert all(len(line) == len(whole[0]) for line in whole)


def test_one_that_is_stopped_in_the_middle_of_its_line_keeps_nobody(
    host: SimulatedHost, conn: Connection
) -> None:
    log = default_path(host)
    log.parent.mkdir(parents=True)
    with log.open("w") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert [line["event"] for line in lines(log)] == ["lent"]


def test_the_installed_plugin_is_found(host: SimulatedHost) -> None:
    registry = Registry.from_entry_points()
    assert registry.plugins["audit"] is hostdev_audit.plugin
    assert not [error for error in registry.load_errors if error.plugin == "audit"]
    with open_connection(f"test://{host.root}", registry=registry) as conn:
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert isinstance(assignment.device, PCIDevice)
    assert lines(default_path(host))[0]["driver"] == "test"
