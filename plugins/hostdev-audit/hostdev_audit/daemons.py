"""The machine's logging daemons: syslog and the journal, which rotate what they keep.

One datagram for each line, sent without waiting: a daemon that is gone, stopped or behind keeps no
device from its guest or from its host. (logging.handlers.SysLogHandler connects again and waits.)
"""

import errno
import fcntl
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from syslog import LOG_AUTHPRIV, LOG_NOTICE, LOG_WARNING

from hostdev_audit.log import Entry

IDENTIFIER = "hostdev-audit"
FAILURES = frozenset({"prepare_failed", "not_returned"})
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
log = logging.getLogger("hostdev.audit")


class Syslog:
    """A socket like /dev/log: the line as the message, facility authpriv (RFC 3164)."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, entry: Entry) -> None:
        """Send one line; what goes wrong is logged, never raised."""
        head = f"<{LOG_AUTHPRIV | _priority(entry)}>{IDENTIFIER}[{os.getpid()}]: "
        _send(self._path, entry, (head + json.dumps(entry)).encode())


class Journal:
    """journald's own socket: the line as the message, and fields to search for.

    Source: systemd's "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL).
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, entry: Entry) -> None:
        """Send one entry; what goes wrong is logged, never raised."""
        data = b"".join(_field(name, str(value)) for name, value in _fields(entry))
        _send(self._path, entry, data, by_file=True)


def _priority(entry: Entry) -> int:
    return LOG_WARNING if entry["event"] in FAILURES else LOG_NOTICE


def _fields(entry: Entry) -> Iterator[tuple[str, object]]:
    """The names and values of a journal entry; one HOSTDEV_DEVICE for each device."""
    yield "MESSAGE", json.dumps(entry)
    yield "PRIORITY", _priority(entry)
    yield "SYSLOG_FACILITY", LOG_AUTHPRIV >> 3
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    for name in ("event", "domain", "uuid", "driver", "uri", "error"):
        if entry.get(name) is not None:
            yield f"HOSTDEV_{name.upper()}", entry[name]
    for device in entry["devices"]:
        yield "HOSTDEV_DEVICE", device["address"]


def _field(name: str, value: str) -> bytes:
    """A field as it is sent; one with a newline says how long it is, so that it cannot end early."""
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _send(path: str, entry: Entry, data: bytes, *, by_file: bool = False) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(path)
            try:
                sender.send(data)
            except OSError as error:
                if error.errno != errno.EMSGSIZE or not by_file:
                    raise
                _send_by_file(sender, data)
    except OSError as error:
        log.error("%s was not written to %s: %s", entry["event"], path, error)


def _send_by_file(sender: socket.socket, data: bytes) -> None:
    """What is too long for a datagram goes as a sealed file in memory, with an empty one."""
    fd = os.memfd_create(IDENTIFIER, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", buffering=0) as file:
        file.write(data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        socket.send_fds(sender, [b""], [fd])
