"""A plan tells every reason against a request, not the first alone; a prepare tells the first."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from hostdev_core import (
    Domain,
    GroupNotViableError,
    HostdevError,
    NotAssignableError,
    PCIHostdev,
    Refusal,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.model.device import Device
from hostdev_core.testing import SimulatedHost

NIC, SIBLING, OTHER = "0000:01:00.0", "0000:01:00.1", "0000:02:00.0"


class Minder:
    """A plugin that refuses whatever it is asked about."""

    @hookimpl
    def hostdev_check(self, devices: Iterable[Device]) -> list[Refusal]:
        return [Refusal("mine", device.name, "it is mine") for device in devices]


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    for address in (NIC, SIBLING):
        host.add_pci(address, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(OTHER, kernel_driver="igb", iommu_group=2, sriov_totalvfs=4)
    return host


def refused(
    host: SimulatedHost, *hostdevs: PCIHostdev, plugin: object = None
) -> tuple[HostdevError, list[str]]:
    """The error of a plan, which is that of a prepare, and its notes; nothing is changed by either."""
    before = host.snapshot()
    registry = Registry.from_entry_points()
    if plugin is not None:
        registry.register(plugin)
    domain = Domain("vm2", hostdevs)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        with pytest.raises(HostdevError) as planned:
            conn.plan(domain)
        with pytest.raises(HostdevError) as prepared:
            conn.prepare_hostdevs(domain)
    assert host.snapshot() == before
    assert type(prepared.value) is type(planned.value)
    assert str(prepared.value) == str(planned.value)
    assert not hasattr(prepared.value, "__notes__")
    return planned.value, getattr(planned.value, "__notes__", [])


def test_the_rules_the_stub_and_a_plugin_are_told_together(host: SimulatedHost) -> None:
    hostdev = PCIHostdev(address=NIC, stub="nonsense")
    error, notes = refused(host, hostdev, plugin=Minder())
    assert isinstance(error, GroupNotViableError)
    assert error.culprits == (SIBLING,)
    by_stub, by_plugin = notes
    assert by_stub.startswith("also: 'nonsense' is no stub driver")
    assert by_stub.endswith("[stub]")
    assert "mine" in by_plugin
    assert NIC in by_plugin


def test_each_device_of_a_request_has_its_reasons(host: SimulatedHost) -> None:
    host.add_pci("0000:02:10.0", kernel_driver="igbvf", iommu_group=3, physfn=OTHER)
    error, notes = refused(host, PCIHostdev(address=NIC), PCIHostdev(address=OTHER, managed=False))
    assert isinstance(error, GroupNotViableError)
    assert [note.rpartition(" ")[2] for note in notes] == ["[virtual-functions]", "[not-detached]"]
    assert all(OTHER in note for note in notes)


def test_one_reason_has_no_notes(host: SimulatedHost) -> None:
    error, notes = refused(host, PCIHostdev(address=OTHER, managed=False))
    assert isinstance(error, NotAssignableError)
    assert error.rule == "not-detached"
    assert notes == []


def test_of_a_device_that_somebody_has_nothing_more_is_asked(host: SimulatedHost) -> None:
    """The kernel may be at work on it, and its locked attributes would not answer."""
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [OTHER]))
    with host.hold_lock(OTHER):
        error, notes = refused(host, PCIHostdev(address=OTHER), plugin=Minder())
    assert error.rule == "lent"  # type: ignore[attr-defined]
    assert notes == []
