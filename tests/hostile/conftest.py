from collections.abc import Iterator

import pytest

import hostdev_qemu
from hostdev_core import Connection, Registry, open_connection
from hostdev_core.simulated import SimulatedHost


@pytest.fixture
def conn(host: SimulatedHost) -> Iterator[Connection]:
    registry = Registry()
    registry.register(hostdev_qemu, name="qemu")
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        yield conn
