"""A machine without a loaded stub, what is written about its modules, and calls that load one.

A file of tests takes the fixtures by their names: `host, conn = modules.host, modules.conn`.
"""

from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    Domain,
    NotAssignableError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Untouched
from tests.sample import make_registry

NIC, IDLE, OTHER, LATE = (f"0000:0{bus}:00.0" for bus in (1, 2, 3, 4))
RELEASE = "6.1.0-simulated"

CONFIGURATION = "etc/modprobe.d/local.conf"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return make_host(tmp_path / "machine")


def make_host(path: Path) -> SimulatedHost:
    """A card on its host driver, and no stub loaded."""
    host = SimulatedHost.create(path)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_driver("other-vfio-pci")
    host.add_pci("0000:09:00.0", id="10de:2204", kernel_driver="other-vfio-pci", iommu_group=9)
    return host


@pytest.fixture
def conn(host: SimulatedHost) -> Connection:
    return connect(host)


def connect(host: SimulatedHost, *plugins: object, uri: str = "qemu:///system") -> Connection:
    registry = make_registry()
    for plugin in plugins:
        registry.register(plugin)
    return open_connection(uri, host=host, registry=registry, deadlines=Deadlines(attribute=1))


def write(host: SimulatedHost, path: str, text: str) -> Path:
    file = Path(host.path(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def lend_and_return(host: SimulatedHost, conn: Connection, *devices: str) -> None:
    before = host.snapshot()
    conn.prepare_hostdevs(Domain("vm1", [*devices]))
    for device in devices:
        assert str(host.snapshot()[device]["kernel_driver"]).endswith("vfio-pci")
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def refuse(host: SimulatedHost, conn: Connection, *devices: str) -> NotAssignableError:
    """What plan and prepare refuse, and nothing is changed by."""
    with Untouched(host), pytest.raises(NotAssignableError) as planned:
        conn.plan(Domain("vm1", [*devices]))
    with Untouched(host), pytest.raises(NotAssignableError) as raised:
        conn.prepare_hostdevs(Domain("vm1", [*devices]))
    assert str(planned.value) == str(raised.value)
    assert not host.modules.is_loaded("vfio_pci")
    return raised.value


def warnings(conn: Connection) -> str:
    return "\n".join(conn.plan(Domain("vm1", [NIC])).warnings)
