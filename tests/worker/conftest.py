"""A connection whose changes a worker makes."""

from collections.abc import Iterator

import pytest

from hostdev_core import Connection, Registry, open_connection
from hostdev_core.simulated import SimulatedHost


@pytest.fixture
def apart(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection("qemu:///system", host=host, registry=registry, worker=True) as conn:
        yield conn
    host.release()
