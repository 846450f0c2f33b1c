"""Hosts and connections for the tests: nothing in them touches this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostdev_core import Connection, Registry, open_connection
from hostdev_core.testing import SimulatedHost, make_sample


@pytest.fixture
def hostdev_host(tmp_path: Path) -> SimulatedHost:
    """A simulated machine: network cards, a disk, a GPU with its sound function, USB devices."""
    return make_sample(tmp_path / "host")


@pytest.fixture
def hostdev_registry() -> Registry:
    """All installed drivers and plugins; a test may register more."""
    return Registry.from_entry_points()


@pytest.fixture
def hostdev_connection(
    hostdev_host: SimulatedHost, hostdev_registry: Registry
) -> Iterator[Connection]:
    """An open connection to it."""
    with open_connection(
        "qemu:///system", host=hostdev_host, registry=hostdev_registry
    ) as connection:
        yield connection
