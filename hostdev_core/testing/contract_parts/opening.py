"""The contract: connections open, close and refuse."""

import json
import os
from collections.abc import Callable

import pytest

from hostdev_core import (
    Connection,
    ConnectionClosedError,
    Domain,
    Plan,
    ReadOnlyError,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import DISK, NIC, ContractBase, Untouched

CHANGES: list[Callable[[Connection], object]] = [
    lambda conn: conn.prepare_hostdevs(Domain("vm1", [NIC])),
    lambda conn: conn.prepare_pci_hostdevs("vm1", []),
    lambda conn: conn.prepare_usb_hostdevs("vm1", []),
    lambda conn: conn.reattach_hostdevs("vm1"),
    lambda conn: conn.reattach_pci_hostdevs("vm1", []),
    lambda conn: conn.reattach_usb_hostdevs("vm1", []),
    lambda conn: conn.detach_device(NIC),
    lambda conn: conn.reattach_device(NIC),
    lambda conn: conn.reset_device(NIC),
    lambda conn: conn.recover(),
]
READS: list[Callable[[Connection], object]] = [
    lambda conn: conn.plan(Domain("vm1", [NIC])),
    lambda conn: conn.get_active_pci_hostdev_list(),
    lambda conn: conn.get_active_usb_hostdev_list(),
    lambda conn: conn.get_inactive_pci_hostdev_list(),
    lambda conn: conn.get_domain_active_pci_hostdev_list("vm1"),
    lambda conn: conn.get_domain_active_usb_hostdev_list("vm1"),
    lambda conn: conn.list_devices(),
    lambda conn: conn.reload(),
]


class Opening(ContractBase):
    """Connections: one driver in the slot while open, none afterwards."""

    def test_the_slot_holds_the_driver_until_the_connection_is_closed(
        self, host: SimulatedHost
    ) -> None:
        conn = self.connect(host)
        assert isinstance(conn.hostdev_driver, self.driver)
        assert not conn.is_closed
        conn.close()
        conn.close()
        assert conn.is_closed
        assert conn.hostdev_driver is None

    def test_a_closed_connection_refuses_everything(self, host: SimulatedHost) -> None:
        conn = self.connect(host)
        conn.close()
        for call in (*CHANGES, *READS):
            with Untouched(host), pytest.raises(ConnectionClosedError, match=conn.uri):
                call(conn)

    def test_a_read_only_connection_refuses_each_change(self, host: SimulatedHost) -> None:
        with self.connect(host, read_only=True) as conn:
            for call in CHANGES:
                with Untouched(host), pytest.raises(ReadOnlyError):
                    call(conn)

    def test_a_read_only_connection_reads_and_makes_nothing(self, host: SimulatedHost) -> None:
        with self.connect(host, read_only=True) as conn, Untouched(host):
            for call in READS:
                call(conn)
        assert not os.path.exists(host.state_dir)

    def test_closing_leaves_the_devices_with_their_domain(self, host: SimulatedHost) -> None:
        before = host.snapshot()
        with self.connect(host) as conn:
            conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        with self.connect(host) as conn:
            assert len(conn.get_domain_active_pci_hostdev_list("vm1")) == 2
            conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before

    def test_a_plan_changes_nothing_and_is_data(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        with Untouched(host):
            plan = conn.plan(Domain("vm1", [NIC, DISK]))
        assert [device.record.address for device in plan.devices] == [NIC, DISK]
        assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
        assert host.writes() == []
