"""A driver of the interface alone, and a connection that is read-only or closed: it changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    ConnectionClosedError,
    Domain,
    PrepareFlags,
    ReadOnlyError,
    Registry,
    UnsupportedError,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Plugin, Untouched
from tests.helpers.foreign_driver import Foreign, MixedDriver
from tests.sample import NIC

VM1 = Domain("vm1", [NIC])
CALLS: list[Callable[[Any, Connection], object]] = [
    lambda driver, conn: driver.prepare_hostdevs(conn, VM1, PrepareFlags.NONE),
    lambda driver, conn: driver.prepare_pci_hostdevs(conn, VM1, [NIC], PrepareFlags.NONE),
    lambda driver, conn: driver.prepare_usb_hostdevs(conn, VM1, [], PrepareFlags.NONE),
    lambda driver, conn: driver.reattach_hostdevs(conn, VM1),
    lambda driver, conn: driver.reattach_pci_hostdevs(conn, VM1, [NIC]),
    lambda driver, conn: driver.reattach_usb_hostdevs(conn, domain=VM1, hostdevs=[]),
    lambda driver, conn: driver.detach_device(conn, NIC),
    lambda driver, conn: driver.reattach_device(conn, NIC),
    lambda driver, conn: driver.reset_device(conn, NIC),
    lambda driver, conn: conn.state.initialize(),
    lambda driver, conn: conn.state.cleanup(),
]


@pytest.mark.parametrize("uri", ["qemu:///system", "foreign:///", "mixed:///"])
@pytest.mark.parametrize("closed", [False, True])
def test_nothing_is_changed_through_the_slot_of_such_a_connection(
    host: SimulatedHost, registry: Registry, uri: str, *, closed: bool
) -> None:
    foreign = Foreign()
    registry.register(Plugin(foreign))
    registry.register(Plugin(MixedDriver()))
    conn = open_connection(uri, host=host, registry=registry, read_only=not closed)
    driver = conn.hostdev_driver
    assert driver is not None
    assert driver in registry.driver_table
    if closed:
        conn.close()
    for call in CALLS:
        wanted = ConnectionClosedError if closed else ReadOnlyError
        with Untouched(host), pytest.raises(wanted):
            call(driver, conn)
    assert foreign.done == []
    if not closed:
        assert not Path(host.state_dir).exists()
        assert conn.state.active_pci == ()
        assert driver.get_active_pci_hostdev_list(conn) == ()


def test_a_foreign_driver_works_where_changes_may_be_made(
    host: SimulatedHost, registry: Registry
) -> None:
    foreign = Foreign()
    registry.register(Plugin(foreign))
    with open_connection("foreign:///", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(VM1)
        returned = conn.reattach_pci_hostdevs(VM1, [NIC, "1-1"])
        assert (returned, returned.waiting) == ((NIC,), ())
    assert foreign.done == ["prepare", "reattach"]


def test_what_a_driver_of_the_interface_alone_lacks_is_named(
    host: SimulatedHost, registry: Registry
) -> None:
    registry.register(Plugin(Foreign()))
    with open_connection("foreign:///", host=host, registry=registry) as conn:
        calls: dict[str, Callable[[], object]] = {
            "plan": lambda: conn.plan(VM1),
            "detach_device": lambda: conn.detach_device(NIC),
            "reattach_device": lambda: conn.reattach_device(NIC),
            "reset_device": lambda: conn.reset_device(NIC),
            "list_devices": conn.list_devices,
        }
        for name, call in calls.items():
            with Untouched(host), pytest.raises(UnsupportedError) as raised:
                call()
            assert str(raised.value) == f"driver foreign does not support {name}"
            assert raised.value.device == (NIC if name.endswith("_device") else "")
