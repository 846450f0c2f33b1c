"""The log in the journal and in syslog: real sockets where a simulated host has its daemons'."""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hostdev_audit
import hostdev_test
from hostdev_audit import plugin
from hostdev_core import Connection, Domain, KernelError, Registry, open_connection
from hostdev_core.testing import SimulatedHost, make_sample

NIC, STICK = "0000:01:00.0", "1-3"
PLACES = {"journal": "run/systemd/journal/socket", "syslog": "dev/log"}
each_daemon = pytest.mark.parametrize("daemon", PLACES)


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> SimulatedHost:
    """In a directory with a short name: a socket's may have 107 letters."""
    for variable in ("HOSTDEV_AUDIT_LOG", "HOSTDEV_AUDIT_TO"):
        monkeypatch.delenv(variable, raising=False)
    return make_sample(tmp_path_factory.mktemp("a") / "host")


@pytest.fixture
def conn(host: SimulatedHost) -> Iterator[Connection]:
    registry = Registry()
    registry.register(hostdev_test, name="test")
    registry.register(hostdev_audit.plugin, name="audit")
    with open_connection(f"test://{host.root}", registry=registry) as conn:
        yield conn


class Daemon:
    """A daemon's end of its socket."""

    def __init__(self, host: SimulatedHost, name: str) -> None:
        self.path = Path(host.path(PLACES[name]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(20)

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def receive(self) -> bytes:
        """The next datagram, or the sealed file that an empty one brings."""
        data, fds, _, _ = socket.recv_fds(self._socket, 1_000_000, 1)
        if not fds:
            return data
        assert data == b""
        (fd,) = fds
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"X", 0)
        with open(fd, "rb") as file:
            file.seek(0)
            return file.read()

    def fill(self) -> None:
        """Let nothing more go in: the daemon does not read."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"noise", str(self.path))


def fields(data: bytes) -> list[tuple[str, str]]:
    """What journald reads of an entry, by systemd's "Native Journal Protocol"."""
    found: list[tuple[str, str]] = []
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        found.append((name.decode(), value.decode()))
        data = rest
    return found


def test_the_journal_has_the_line_and_fields(
    host: SimulatedHost, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", "journal")
    with Daemon(host, "journal") as journal:
        conn.prepare_hostdevs(Domain("vm1", [NIC, STICK]))
        found = fields(journal.receive())
    line = json.loads(dict(found)["MESSAGE"])
    assert (line["event"], line["domain"]) == ("lent", "vm1")
    assert found[1:] == [
        ("PRIORITY", "5"),
        ("SYSLOG_FACILITY", "10"),
        ("SYSLOG_IDENTIFIER", "hostdev-audit"),
        ("HOSTDEV_EVENT", "lent"),
        ("HOSTDEV_DOMAIN", "vm1"),
        ("HOSTDEV_DRIVER", "test"),
        ("HOSTDEV_URI", conn.uri),
        ("HOSTDEV_DEVICE", NIC),
        ("HOSTDEV_DEVICE", STICK),
    ]
    assert not Path(host.path("var/log/hostdev")).exists()


def test_syslog_has_the_line(
    host: SimulatedHost, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", "syslog")
    with Daemon(host, "syslog") as syslog:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        head, _, line = syslog.receive().decode().partition(": ")
    assert head == f"<85>hostdev-audit[{os.getpid()}]"  # authpriv.notice
    assert json.loads(line)["event"] == "lent"


def test_a_failure_is_a_warning(
    host: SimulatedHost, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", "journal,syslog")
    host.on_write("*/vfio-pci/bind", errno=5)
    with Daemon(host, "journal") as journal, Daemon(host, "syslog") as syslog:
        with pytest.raises(KernelError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        found = dict(fields(journal.receive()))
        assert found["PRIORITY"] == "4"
        assert found["HOSTDEV_ERROR"].startswith("KernelError: ")
        assert syslog.receive().startswith(b"<84>")


@pytest.mark.parametrize("where", ["file,journal,syslog", " Syslog journal\tFILE "])
def test_all_get_the_same_line(
    host: SimulatedHost, conn: Connection, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", where)
    with Daemon(host, "journal") as journal, Daemon(host, "syslog") as syslog:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
        lines = Path(host.path("var/log/hostdev/audit.jsonl")).read_text().splitlines()
        for line in lines:
            assert dict(fields(journal.receive()))["MESSAGE"] == line
            assert syslog.receive().decode().endswith(f": {line}")
    assert json.loads(lines[-1])["devices"][0]["seconds"] is not None


@each_daemon
def test_without_the_file_nothing_says_how_long(
    host: SimulatedHost, conn: Connection, monkeypatch: pytest.MonkeyPatch, daemon: str
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", daemon)
    with Daemon(host, daemon) as end:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
        *_, returned = (end.receive() for _ in range(3))
    assert b'"event": "returned"' in returned
    assert b'"seconds": null' in returned


@each_daemon
@pytest.mark.parametrize("state", ["missing", "gone", "full", "a stream", "a file"])
def test_a_daemon_that_does_not_listen_stops_nothing(
    host: SimulatedHost,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    daemon: str,
    state: str,
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", daemon)
    before = host.snapshot()
    with Daemon(host, daemon) as end, socket.socket(socket.AF_UNIX) as stream:
        if state == "full":
            end.fill()
        elif state == "gone":
            end.__exit__()
        else:
            end.path.unlink()
        if state == "a file":
            end.path.touch()
        elif state == "a stream":
            stream.bind(str(end.path))
            stream.listen()
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(" ")[0] for text in told] == ["lent", "returning", "returned"]
    assert all(f"was not written to {end.path}: [Errno" in text for text in told)


def test_an_unknown_word_is_told_and_the_file_written(
    host: SimulatedHost,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", "jurnal")
    conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert "HOSTDEV_AUDIT_TO names jurnal; wanted file, journal, syslog" in caplog.text
    assert '"lent"' in Path(host.path("var/log/hostdev/audit.jsonl")).read_text()


def test_a_very_long_line_reaches_the_journal(
    host: SimulatedHost,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", "journal,syslog")
    long = "1" * 400_000
    with Daemon(host, "journal") as journal, Daemon(host, "syslog") as syslog:
        devices = conn.list_devices()[:1]
        plugin.hostdev_prepare_failed(conn, Domain("vm1"), devices, ValueError(long))
        assert any(long in value for _, value in fields(journal.receive()))
    assert f"prepare_failed was not written to {syslog.path}: [Errno" in caplog.text


@given(
    uuid=st.text(st.characters(), min_size=1, max_size=30).filter(str.isprintable),
    name=st.text('aé ﬀ="\\', min_size=1),
)
@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_text_can_pass_for_a_field(
    host: SimulatedHost, conn: Connection, monkeypatch: pytest.MonkeyPatch, uuid: str, name: str
) -> None:
    monkeypatch.setenv("HOSTDEV_AUDIT_TO", "journal,syslog")
    places = [Path(host.path(place)) for place in PLACES.values()]
    for place in places:
        place.unlink(missing_ok=True)
    with Daemon(host, "journal") as journal, Daemon(host, "syslog") as syslog:
        conn.prepare_hostdevs(Domain(name, [NIC], uuid=uuid))
        conn.reattach_hostdevs(name)
        found = fields(journal.receive())
        message = syslog.receive()
    assert [key for key, _ in found].count("HOSTDEV_UUID") == 1
    assert dict(found)["HOSTDEV_UUID"] == uuid.encode("utf-8", "backslashreplace").decode()
    assert dict(found)["HOSTDEV_DOMAIN"] == name
    assert b"\n" not in message
    line: dict[str, Any] = json.loads(message.partition(b": ")[2])
    assert (line["uuid"], line["domain"]) == (uuid, name)
