"""The hostdev driver for simulated hosts.

It is loaded with every connection, so what simulates a host is imported when one is opened.
"""

import os
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from hostdev_core import (
    Connection,
    Device,
    Host,
    InvalidURIError,
    LocalHostdevDriver,
)


class SimulatedDriver(LocalHostdevDriver):
    """Lends the devices of a simulated host: `test:///DIR` opens one; `test:///default` and a file of
    `hostdev capture`, `test:///FILE`, make one for as long as the connection is open.
    """

    name = "test"
    uri_schemes = ("test",)
    stubs = ("vfio-pci", "pci-stub")

    def host_for(self, uri: str) -> Host | None:
        import tempfile

        from hostdev_core.simulated import SimulatedHost, make_sample

        path = unquote(urlsplit(uri).path)
        if urlsplit(uri).netloc or path in {"", "/"}:
            raise InvalidURIError(
                f"{uri!r} names no host; wanted test:///default, test:///DIR or test:///FILE"
            )
        if path == "/default":
            return make_sample(tempfile.mkdtemp(prefix="hostdev-"))
        # A path that is missing goes to SimulatedHost.open, whose error says what is wanted.
        if os.path.exists(path) and not os.path.isdir(path):
            return SimulatedHost.replay(path)
        return SimulatedHost.open(path)

    def close_backend(self, conn: Connection) -> None:
        import shutil

        from hostdev_core.simulated import SimulatedHost

        path = os.path.abspath(unquote(urlsplit(conn.uri).path))
        if isinstance(conn.host, SimulatedHost) and conn.host.root != path:
            shutil.rmtree(conn.host.root, ignore_errors=True)  # made for this connection

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        return ("device", device.kind, device.name)
