"""Read and write Xen's store, over xenstored's own socket; no other module does.

The wire format is xs_wire.h of Xen's public interface; no program is started.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager

from hostdev_core.errors import StateError
from hostdev_core.kernel.watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.kernel.files import Machine

_HEADER = struct.Struct("=IIII")
_DIRECTORY, _READ, _WRITE, _REMOVE, _ERROR = 1, 2, 11, 13, 16
PATIENCE = 10  # seconds
SOCKETS = ("run/xenstored/socket", "var/run/xenstored/socket")


class Xenstore(Watched):
    """Reads and writes one host's xenstore; a path that is not there reads as None."""

    def __init__(self, host: "Machine") -> None:
        self._host = host

    def read(self, path: str) -> str | None:
        """Read the value of a node."""
        return self._ask(_READ, path.encode() + b"\0")

    def children(self, path: str) -> list[str]:
        """List the names below a node; none when it is not there."""
        answer = self._ask(_DIRECTORY, path.encode() + b"\0")
        return [name for name in (answer or "").split("\0") if name]

    def write(self, path: str, value: str) -> None:
        """Set a node; it is made, with its parents, when it is not there."""
        with self._refusing(path), self.changing(f"xenstore {path}"):
            self._write(path, value)

    def remove(self, path: str) -> None:
        """Remove a node and all below it; nothing happens when it is not there."""
        with self._refusing(path), self.changing(f"xenstore {path}"):
            self._remove(path)

    @contextmanager
    def _refusing(self, path: str) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            raise refused(path, errno.errorcode.get(error.errno or 0, str(error))) from error

    def _write(self, path: str, value: str) -> None:
        self._ask(_WRITE, path.encode() + b"\0" + value.encode())

    def _remove(self, path: str) -> None:
        self._ask(_REMOVE, path.encode() + b"\0")

    def _ask(self, kind: int, payload: bytes) -> str | None:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                _connect(connection, self._socket())
                connection.settimeout(PATIENCE)
                connection.sendall(_HEADER.pack(kind, 0, 0, len(payload)) + payload)
                answer, _, _, size = _HEADER.unpack(_receive(connection, _HEADER.size))
                body = _receive(connection, size)
            except OSError as error:
                raise StateError(
                    f"xenstore does not answer: {error}; is xenstored running?"
                ) from error
        if answer != _ERROR:
            return body.decode("utf-8", "replace")
        reason = body.rstrip(b"\0").decode()
        if reason == "ENOENT":
            return None
        raise refused(payload.split(bytes(1))[0].decode(), reason)

    def _socket(self) -> str:
        paths = [self._host.path(name) for name in SOCKETS]
        return next((path for path in paths if os.path.exists(path)), paths[0])


def refused(path: str, reason: str) -> StateError:
    """Make the error for a request that xenstored refused; `reason` is an errno's name."""
    return StateError(f"xenstore refused {path}: {reason}")


def _connect(connection: socket.socket, path: str) -> None:
    """Connect, and wait while the listen queue is full, which a socket's timeout does not (unix(7))."""
    end = time.monotonic() + PATIENCE
    connection.setblocking(False)
    while True:
        try:
            return connection.connect(path)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the connection ended")
        data += part
    return data
