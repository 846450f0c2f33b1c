"""The contract: plugins are told, in order."""

from collections.abc import Sequence

import pytest

from hostdev_core import (
    Connection,
    Device,
    Domain,
    KernelError,
    PCIAddress,
    PCIHostdev,
    Refusal,
    VetoError,
    hookimpl,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import DISK, NIC, ContractBase, Untouched

Devices = Sequence[Device]


class Refuser:
    """A plugin that refuses everything by one rule."""

    @hookimpl
    def hostdev_check(self, devices: Devices) -> list[Refusal]:
        """No, for each."""
        return [Refusal("rule", device.name, "no") for device in devices]


class Recorder:
    """A plugin that writes down each hook it hears, with the devices."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def _tell(self, what: str, domain: Domain | None, devices: Devices) -> None:
        name = domain.name if domain else "-"
        self.told.append((what, name, *sorted(device.name for device in devices)))

    @hookimpl
    def hostdev_connection_opened(self, conn: Connection) -> None:
        """Told once."""
        self.told.append(("opened",))

    @hookimpl
    def hostdev_connection_closing(self, conn: Connection) -> None:
        """Told once."""
        self.told.append(("closing",))

    @hookimpl
    def hostdev_before_prepare(self, domain: Domain | None, devices: Devices) -> None:
        """Told with the devices that are claimed."""
        self._tell("before_prepare", domain, devices)

    @hookimpl
    def hostdev_after_prepare(self, domain: Domain | None, devices: Devices) -> None:
        """Told with the same devices."""
        self._tell("after_prepare", domain, devices)

    @hookimpl
    def hostdev_prepare_failed(
        self, domain: Domain | None, devices: Devices, error: BaseException
    ) -> None:
        """Told with the error too."""
        self._tell("prepare_failed", domain, devices)

    @hookimpl
    def hostdev_before_reattach(self, domain: Domain | None, devices: Devices) -> None:
        """Told with the devices that are about to be given back."""
        self._tell("before_reattach", domain, devices)

    @hookimpl
    def hostdev_after_reattach(self, domain: Domain | None, devices: Devices) -> None:
        """Told with the devices that are back."""
        self._tell("after_reattach", domain, devices)


class HookOrder(ContractBase):
    """The hooks of one connection's life."""

    def test_hooks_of_a_domain_fire_in_order(self, host: SimulatedHost) -> None:
        recorder = Recorder()
        with self.connect(host, self.make_registry(recorder)) as conn:
            conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
            conn.reattach_hostdevs("vm1")
        assert recorder.told == [
            ("opened",),
            ("before_prepare", "vm1", NIC, DISK),
            ("after_prepare", "vm1", NIC, DISK),
            ("before_reattach", "vm1", NIC, DISK),
            ("after_reattach", "vm1", NIC, DISK),
            ("closing",),
        ]

    def test_hooks_of_one_device_have_no_domain(self, host: SimulatedHost) -> None:
        recorder = Recorder()
        with self.connect(host, self.make_registry(recorder)) as conn:
            conn.detach_device(NIC)
            conn.reattach_device(NIC)
        assert [told[:2] for told in recorder.told[1:-1]] == [
            ("before_prepare", "-"),
            ("after_prepare", "-"),
            ("before_reattach", "-"),
            ("after_reattach", "-"),
        ]

    def test_a_refusal_is_passed_by_its_rule_alone(self, host: SimulatedHost) -> None:
        with self.connect(host, self.make_registry(Refuser())) as conn:
            for allow in (set[str](), {"other"}):
                with Untouched(host), pytest.raises(VetoError, match="rule"):
                    conn.detach_device(NIC, allow=allow)
                wanted = PCIHostdev(address=PCIAddress.parse(NIC), allow=frozenset(allow))
                with Untouched(host), pytest.raises(VetoError, match="rule"):
                    conn.prepare_hostdevs(Domain("vm1", (wanted,)))
            conn.detach_device(NIC, allow={"rule"})
            with Untouched(host), pytest.raises(VetoError, match="rule"):
                conn.reset_device(NIC)
            conn.reset_device(NIC, allow={"rule"})
            conn.reattach_device(NIC)

    def test_a_failure_is_told_once(self, host: SimulatedHost) -> None:
        recorder = Recorder()
        host.on_write("bus/pci/drivers/e1000e/unbind", errno=5)
        with self.connect(host, self.make_registry(recorder)) as conn, pytest.raises(KernelError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert recorder.told[1:-1] == [
            ("before_prepare", "vm1", NIC),
            ("prepare_failed", "vm1", NIC),
        ]
