"""Backends whose stub driver is their own, or that do without an IOMMU: lent, grouped, given back."""

from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    GroupNotViableError,
    Registry,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Plugin
from tests.contract.test_kinds import NoIOMMU, OwnStub
from tests.sample import NIC

MATE, GUESTS, STRANGER = "0000:01:00.1", "0000:01:00.2", "0000:01:00.3"


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_driver("own-stub", module="own_hypervisor", loaded=False)
    for address in (NIC, MATE):
        host.add_pci(address, kernel_driver="igb", iommu_group=1)
    return host


def connect(uri: str, host: SimulatedHost) -> Connection:
    registry = Registry.from_entry_points(())
    for row in (OwnStub(), NoIOMMU()):
        registry.register(Plugin(row), name=row.name)
    return open_connection(uri, host=host, registry=registry)


def test_a_stub_driver_of_its_own_in_a_module_of_another_name(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect("own:///system", host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, MATE]))
        assert host.snapshot()[NIC]["kernel_driver"] == "own-stub"
        assert Path(host.path(f"run/own/{NIC}")).read_text() == "vm1"
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert not Path(host.path("run/own")).exists()


def test_what_is_on_its_stub_does_not_keep_the_group_from_being_lent(host: SimulatedHost) -> None:
    host.add_pci(GUESTS, kernel_driver="own-stub", iommu_group=1)
    with connect("own:///system", host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, MATE]))
        conn.reattach_hostdevs("vm1")
        host.add_pci(STRANGER, kernel_driver="e1000e", iommu_group=1)
        with pytest.raises(GroupNotViableError) as caught:
            conn.prepare_hostdevs(Domain("vm1", [NIC, MATE]))
    assert caught.value.culprits == (STRANGER,)


def test_to_qemu_a_foreign_stub_is_a_host_driver_as_to_vfio(host: SimulatedHost) -> None:
    host.add_pci(GUESTS, kernel_driver="own-stub", iommu_group=1)
    with connect("qemu:///system", host) as conn, pytest.raises(GroupNotViableError) as caught:
        conn.prepare_hostdevs(Domain("vm1", [NIC, MATE]))
    assert caught.value.culprits == (GUESTS,)


def test_a_hypervisor_that_needs_no_iommu(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "without", iommu=False)
    for address in (NIC, MATE):
        host.add_pci(address, kernel_driver="igb")
    before = host.snapshot()
    with connect("apart:///system", host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))  # its mate stays on the host's driver
        assert host.snapshot()[MATE] == before[MATE]
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
