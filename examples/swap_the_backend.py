"""Swap the backend in the tests of a small manager of virtual machines: no hardware, no mocks.

The manager is told the URI of its connection. In production that is qemu:///system, in its tests a
simulated host, where each write has the kernel's effects. Run this file, or give it to pytest.
"""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostdev_core import DeviceInUseError, Domain, KernelError, open_connection
from hostdev_core.testing import SimulatedHost, make_sample


class Manager:
    """Starts and stops machines with devices of the host."""

    def __init__(self, uri: str = "qemu:///system") -> None:
        self.conn = open_connection(uri)
        self.running: dict[str, tuple[str, ...]] = {}

    def start(self, name: str, hostdevs: list[str]) -> None:
        """Lend the devices; a real manager starts its hypervisor with the words it gets."""
        assignments = self.conn.prepare_hostdevs(Domain(name, hostdevs))
        self.running[name] = self.conn.arguments(assignments)

    def stop(self, name: str) -> None:
        """Take back all that the machine has."""
        self.running.pop(name, None)
        self.conn.reattach_hostdevs(name)


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return make_sample(tmp_path / "host")


@pytest.fixture
def manager(host: SimulatedHost) -> Iterator[Manager]:
    manager = Manager(f"test://{host.root}")
    yield manager
    manager.conn.close()


def test_a_stopped_machine_leaves_the_host_as_found(host: SimulatedHost, manager: Manager) -> None:
    before = host.snapshot()
    manager.start("vm1", ["01:00.0", "04:00.0"])
    assert host.snapshot()["0000:01:00.0"]["kernel_driver"] == "vfio-pci"
    manager.stop("vm1")
    assert host.snapshot() == before


def test_a_second_machine_is_refused(manager: Manager) -> None:
    manager.start("vm1", ["01:00.0"])
    with pytest.raises(DeviceInUseError, match="domain 'vm1'"):
        manager.start("vm2", ["01:00.0", "02:00.0"])
    assert list(manager.running) == ["vm1"]


def test_a_start_that_fails_leaves_the_host_as_found(host: SimulatedHost, manager: Manager) -> None:
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", value="0000:02:00.0", errno=errno.ENODEV)
    with pytest.raises(KernelError):
        manager.start("vm1", ["01:00.0", "02:00.0"])
    assert host.snapshot() == before


if __name__ == "__main__":
    # It is imported already here, which pytest would warn of.
    known = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
    raise SystemExit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *known]))
