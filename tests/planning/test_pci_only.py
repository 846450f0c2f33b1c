"""A hypervisor that takes PCI devices only: its driver says so, and every USB hostdev is refused."""

from collections.abc import Iterator

import pytest

from hostdev_core import (
    Connection,
    Domain,
    LocalHostdevDriver,
    NotAssignableError,
    Registry,
    USBHostdev,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Plugin, Untouched
from tests.sample import NIC


class PCIOnlyDriver(LocalHostdevDriver):
    name = "pci-only"
    uri_schemes = ("pci-only",)
    stubs = ("vfio-pci",)
    takes_usb = False


@pytest.fixture
def conn(host: SimulatedHost) -> Iterator[Connection]:
    registry = Registry()
    registry.register(Plugin(PCIOnlyDriver()))
    with open_connection("pci-only:///system", host=host, registry=registry) as conn:
        yield conn


@pytest.mark.parametrize(
    "hostdev",
    [
        USBHostdev(port="1-1"),
        USBHostdev(vendor="0951"),
        USBHostdev(port="1-9", startup_policy="optional"),
    ],
    ids=["there", "by ids", "missing and optional"],
)
def test_a_usb_device_is_refused(
    host: SimulatedHost, conn: Connection, hostdev: USBHostdev
) -> None:
    host.add_usb("1-1", id="0951:1666")
    domain = Domain("vm1", [NIC, hostdev])
    for call in (conn.plan, conn.prepare_hostdevs):
        with Untouched(host), pytest.raises(NotAssignableError, match="pci-only takes PCI") as no:
            call(domain)
        assert no.value.device == str(hostdev)


def test_the_usb_controller_can_be_lent(host: SimulatedHost, conn: Connection) -> None:
    host.add_usb("1-1")
    before = host.snapshot()
    (assignment,) = conn.prepare_hostdevs(Domain("vm1", ["00:14.0"]))
    assert assignment.device is not None
    assert assignment.device.kind == "pci"
    conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
