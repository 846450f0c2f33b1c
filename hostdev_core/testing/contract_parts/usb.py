"""The contract: USB devices are reserved, by whatever name they are asked for."""

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    DeviceNotFoundError,
    Domain,
    HostdevError,
    InvalidAddressError,
    NotAssignableError,
    PrepareFlags,
    USBHostdev,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import NIC, ContractBase, Untouched, names

CONTROLLER = "0000:00:14.0"
STICK = {"port": "1-3", "bus": 1, "vendor": "0951", "product": "1666", "serial": "60A4"}


class USBDevices(ContractBase):
    """Selectors, startup policies, controllers."""

    @pytest.fixture
    def usb_host(self, host: SimulatedHost) -> SimulatedHost:
        """The machine with two equal mice and a stick with a serial."""
        self.need_usb()
        return self.plug_in(host)

    def plug_in(self, host: SimulatedHost) -> SimulatedHost:
        """Plug them in."""
        host.add_usb("1-1", id="046d:c077")
        host.add_usb("1-2", id="046d:c077")
        host.add_usb("1-3", id="0951:1666", serial="60A4", kernel_driver="usb-storage")
        return host

    @pytest.mark.parametrize(
        "hostdev",
        [
            USBHostdev(port="1-3"),
            USBHostdev(bus=1, device=4),
            USBHostdev(vendor="0951", product="1666"),
            USBHostdev(vendor="0951"),
            USBHostdev(serial="60A4"),
            USBHostdev(**STICK),  # type: ignore[arg-type]
        ],
        ids=str,
    )
    def test_a_device_is_found_by_what_is_said_of_it(
        self, usb_host: SimulatedHost, conn: Connection, hostdev: USBHostdev
    ) -> None:
        before = usb_host.snapshot()
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [hostdev]))
        assert assignment.device is not None
        assert assignment.device.name == "1-3"
        assert names(conn.get_active_usb_hostdev_list()) == ["1-3"]
        assert usb_host.snapshot() == before
        with pytest.raises(DeviceInUseError, match="vm1"):
            conn.prepare_hostdevs(Domain("vm2", [USBHostdev(serial="60A4")]))
        assert conn.reattach_usb_hostdevs("vm1", [hostdev]) == ("1-3",)
        assert usb_host.ledger.records() == []

    @pytest.mark.parametrize(
        ("hostdev", "error"),
        [
            (USBHostdev(vendor="046d", product="c077"), NotAssignableError),
            (USBHostdev(port="1-1", serial="60A4"), DeviceNotFoundError),
            (USBHostdev(port="1-9"), DeviceNotFoundError),
            (USBHostdev(bus=1, device=1), DeviceNotFoundError),
        ],
        ids=["ambiguous", "does not match", "missing", "root hub"],
    )
    def test_what_is_not_exactly_one_device(
        self,
        usb_host: SimulatedHost,
        conn: Connection,
        hostdev: USBHostdev,
        error: type[HostdevError],
    ) -> None:
        with Untouched(usb_host), pytest.raises(error) as raised:
            conn.prepare_hostdevs(Domain("vm1", ["1-2", hostdev]))
        if error is NotAssignableError:
            assert "1-1" in str(raised.value)
            assert "1-2" in str(raised.value)

    def test_a_driver_that_takes_none_refuses_each(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        if self.driver.takes_usb:
            pytest.skip("this driver takes USB devices")
        self.plug_in(host)
        gone = USBHostdev(port="1-9", startup_policy="optional")
        for hostdev in (USBHostdev(port="1-3"), USBHostdev(serial="60A4"), gone):
            domain = Domain("vm1", [NIC, hostdev])
            with Untouched(host), pytest.raises(NotAssignableError, match="PCI devices only"):
                conn.plan(domain)
            with Untouched(host), pytest.raises(NotAssignableError, match="PCI devices only"):
                conn.prepare_hostdevs(domain)
            with Untouched(host), pytest.raises(NotAssignableError, match="PCI devices only"):
                conn.prepare_usb_hostdevs("vm1", [hostdev])

    def test_a_selector_that_selects_nothing(self) -> None:
        with pytest.raises(InvalidAddressError):
            USBHostdev()

    @pytest.mark.parametrize(
        ("policy", "flags", "missing"),
        [
            ("mandatory", PrepareFlags.NONE, False),
            ("requisite", PrepareFlags.COLD_BOOT, False),
            ("requisite", PrepareFlags.NONE, True),
            ("optional", PrepareFlags.COLD_BOOT, True),
        ],
    )
    def test_a_missing_device_by_its_startup_policy(
        self,
        usb_host: SimulatedHost,
        conn: Connection,
        policy: str,
        flags: PrepareFlags,
        missing: bool,
    ) -> None:
        hostdev = USBHostdev(port="1-9", startup_policy=policy)  # type: ignore[arg-type]
        domain = Domain("vm1", [hostdev, "1-1"])
        if not missing:
            with Untouched(usb_host), pytest.raises(DeviceNotFoundError):
                conn.prepare_hostdevs(domain, flags)
            return
        first, second = conn.prepare_hostdevs(domain, flags)
        assert first.device is None
        assert "1-9" in str(first.missing)
        assert second.device is not None
        assert conn.reattach_hostdevs(domain) == ("1-1",)

    def test_a_controller_with_lent_devices_is_not_lent(
        self, usb_host: SimulatedHost, conn: Connection
    ) -> None:
        conn.prepare_hostdevs(Domain("vm1", ["1-1"]))
        with Untouched(usb_host), pytest.raises(DeviceInUseError, match="1-1"):
            conn.prepare_hostdevs(Domain("vm2", [CONTROLLER]))
        with Untouched(usb_host), pytest.raises(DeviceInUseError, match="1-1"):
            conn.prepare_hostdevs(Domain("vm1", [CONTROLLER]))

    def test_a_controller_and_a_device_on_it_are_not_lent_together(
        self, usb_host: SimulatedHost, conn: Connection
    ) -> None:
        with Untouched(usb_host), pytest.raises(HostdevError):
            conn.prepare_hostdevs(Domain("vm1", ["1-1", CONTROLLER]))

    def test_a_lent_controller_takes_its_devices_along(
        self, usb_host: SimulatedHost, conn: Connection
    ) -> None:
        before = usb_host.snapshot()
        conn.prepare_hostdevs(Domain("vm1", [CONTROLLER]))
        with Untouched(usb_host), pytest.raises(DeviceNotFoundError):
            conn.prepare_hostdevs(Domain("vm2", ["1-1"]))
        conn.reattach_hostdevs("vm1")
        assert usb_host.snapshot() == before

    def test_a_replug_while_lent_is_noticed(
        self, usb_host: SimulatedHost, conn: Connection
    ) -> None:
        conn.prepare_hostdevs(Domain("vm1", ["1-3"]))
        usb_host.unplug("1-3")
        assert [drift.what for drift in conn.reload()] == ["gone"]
        usb_host.add_usb("1-3", id="0951:1666", serial="60A4", device=9)
        assert [drift.what for drift in conn.reload()] == ["replaced"]
        assert conn.reattach_hostdevs("vm1") == ("1-3",)
