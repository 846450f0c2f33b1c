"""The hostdev driver for simulated hosts."""

import shutil
import tempfile
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from hostdev_core import (
    Connection,
    Host,
    InvalidURIError,
    LocalHostdevDriver,
    PCIDevice,
    USBDevice,
)
from hostdev_core.simulated import SimulatedHost, make_sample


class SimulatedDriver(LocalHostdevDriver):
    """Lends the devices of a simulated host: `test:///default` makes one, `test:///DIR` opens one."""

    name = "test"
    uri_schemes = ("test",)
    stubs = ("vfio-pci", "pci-stub")

    def host_for(self, uri: str) -> Host | None:
        path = unquote(urlsplit(uri).path)
        if urlsplit(uri).netloc or path in {"", "/"}:
            raise InvalidURIError(f"{uri!r} names no host; wanted test:///default or test:///DIR")
        if path == "/default":
            return make_sample(tempfile.mkdtemp(prefix="hostdev-"))
        return SimulatedHost.open(path)

    def close_backend(self, conn: Connection) -> None:
        if urlsplit(conn.uri).path == "/default":
            shutil.rmtree(conn.host.root, ignore_errors=True)

    def arguments(self, device: PCIDevice | USBDevice, node: str | None) -> Sequence[str]:
        return ("device", device.kind, device.name)
