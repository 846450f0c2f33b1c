import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostdev_qemu
from hostdev_core import Connection, Registry, open_connection
from hostdev_core.simulated import SimulatedHost
from tests.flow.workers import make_host

# A shell ignores these for what it starts in the background, and what is ignored is inherited.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SimulatedHost]:
    host = make_host(tmp_path / "host")
    yield host
    host.release()  # whatever became of a test: no other process hangs for ever


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(hostdev_qemu, name="qemu")
    return registry


@pytest.fixture
def conn(host: SimulatedHost, registry: Registry) -> Iterator[Connection]:
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        yield conn
