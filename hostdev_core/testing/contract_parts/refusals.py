"""The contract: what is refused, by which error, and that a refusal changes nothing."""

from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    DeviceNotFoundError,
    Domain,
    DuplicateDeviceError,
    GroupNotViableError,
    HostdevError,
    InvalidAddressError,
    NotAssignableError,
    PCIHostdev,
    PrepareFlags,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import (
    DISK,
    GPU,
    NIC,
    SOUND,
    ContractBase,
    Untouched,
    add_card,
)

PF, VF = "0000:05:00.0", "0000:05:00.1"
BRIDGE = "0000:06:00.0"


class RefusalsBase(ContractBase):
    """A call that is refused, for the parts below."""

    def refused(self, host: SimulatedHost, conn: Connection, domain: Domain) -> HostdevError:
        """The error of a prepare, which plan raises too and which changes nothing."""
        with Untouched(host), pytest.raises(HostdevError) as planned:
            conn.plan(domain)
        with Untouched(host), pytest.raises(HostdevError) as raised:
            conn.prepare_hostdevs(domain)
        assert type(planned.value) is type(raised.value)
        return raised.value


class Refusals(RefusalsBase):
    """Conflicts and devices that cannot be lent."""

    def test_another_domain_has_it(self, host: SimulatedHost, conn: Connection) -> None:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        error = self.refused(host, conn, Domain("vm2", [DISK, NIC]))
        assert isinstance(error, DeviceInUseError)
        assert error.device == NIC
        assert error.used_by is not None
        assert (error.used_by.domain, error.used_by.driver) == ("vm1", self.driver.name)
        assert "vm1" in str(error)
        assert NIC in str(error)

    def test_the_same_domain_has_it(self, host: SimulatedHost, conn: Connection) -> None:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert isinstance(self.refused(host, conn, Domain("vm1", [NIC])), DeviceInUseError)

    def test_a_domain_of_this_name_under_another_driver_has_it(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        with self.connect_other(host) as other:
            other.prepare_hostdevs(Domain("vm1", [NIC]))
            error = self.refused(host, conn, Domain("vm1", [NIC]))
            assert isinstance(error, DeviceInUseError)
            assert "other:///system" in str(error)
            with Untouched(host), pytest.raises(DeviceInUseError):
                conn.prepare_hostdevs(Domain("vm1", [NIC]), PrepareFlags.ALLOW_SAME_OWNER)
            with Untouched(host):
                assert conn.reattach_hostdevs("vm1") == ()
            assert conn.get_active_pci_hostdev_list() == other.get_active_pci_hostdev_list()
            other.reattach_hostdevs("vm1")

    def test_a_domain_of_this_name_with_another_uuid_has_it(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        conn.prepare_hostdevs(Domain("vm1", [NIC], uuid="1"))
        again = Domain("vm1", [NIC], uuid="2")
        with Untouched(host), pytest.raises(DeviceInUseError):
            conn.prepare_hostdevs(again, PrepareFlags.ALLOW_SAME_OWNER)
        with Untouched(host):
            assert conn.reattach_hostdevs(again) == ()
        assert conn.reattach_hostdevs(Domain("vm1")) == (NIC,)

    def test_a_lent_device_is_neither_detached_nor_given_back_nor_reset(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        for call in (conn.detach_device, conn.reattach_device, conn.reset_device):
            with Untouched(host), pytest.raises(DeviceInUseError, match="vm1"):
                call(NIC)

    def test_a_device_on_its_driver_is_not_reset(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        with Untouched(host), pytest.raises(NotAssignableError, match="e1000e"):
            conn.reset_device(NIC)
        assert host.writes() == []

    def test_twice_in_one_request(self, host: SimulatedHost, conn: Connection) -> None:
        error = self.refused(host, conn, Domain("vm1", [NIC, DISK, "01:00.0"]))
        assert isinstance(error, DuplicateDeviceError)

    def test_no_such_device(self, host: SimulatedHost, conn: Connection) -> None:
        error = self.refused(host, conn, Domain("vm1", [NIC, "0000:44:00.0"]))
        assert isinstance(error, DeviceNotFoundError)
        assert error.device == "0000:44:00.0"

    def test_no_address(self, host: SimulatedHost, conn: Connection) -> None:
        for text in ("0000:01:20.0", "01:00.8", "../../etc", "", "0000:01:00.0\n"):
            for call in (conn.detach_device, conn.reattach_device, conn.reset_device):
                with Untouched(host), pytest.raises(InvalidAddressError):
                    call(text)

    @pytest.mark.parametrize("header", [0, 1])
    def test_a_bridge(self, host: SimulatedHost, conn: Connection, header: int) -> None:
        class_ = "060400" if header == 0 else "020000"
        add_card(host, BRIDGE, None, 6, class_=class_, header_type=header)
        error = self.refused(host, conn, Domain("vm1", [BRIDGE]))
        assert isinstance(error, NotAssignableError)
        assert error.device == BRIDGE

    def test_unmanaged_on_its_driver(self, host: SimulatedHost, conn: Connection) -> None:
        hostdev = PCIHostdev(address=NIC, managed=False)
        error = self.refused(host, conn, Domain("vm1", [hostdev]))
        assert isinstance(error, NotAssignableError)
        assert f"detach {NIC}" in str(error)

    def test_a_stub_that_the_driver_does_not_accept(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        hostdev = PCIHostdev(address=NIC, stub="e1000e")
        assert isinstance(self.refused(host, conn, Domain("vm1", [hostdev])), NotAssignableError)

    def test_a_physical_function_with_virtual_ones(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.add_functions(host)
        error = self.refused(host, conn, Domain("vm1", [PF]))
        assert isinstance(error, NotAssignableError)
        assert VF in str(error)

    def test_a_virtual_function_can_be_lent_and_its_parent_then_not(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.add_functions(host)
        before = host.snapshot()
        conn.prepare_hostdevs(Domain("vm1", [VF]))
        assert "vm1" in str(self.refused(host, conn, Domain("vm2", [PF])))
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before

    def add_functions(self, host: SimulatedHost) -> None:
        """A card with two virtual functions."""
        add_card(host, PF, "igb", 5, id="8086:1521", sriov_totalvfs=2)
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "2")
        host.clear_writes()


class GroupRefusals(RefusalsBase):
    """IOMMU groups."""

    def test_a_group_with_a_member_on_its_driver(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_groups(host)
        error = self.refused(host, conn, Domain("vm1", [GPU]))
        assert isinstance(error, GroupNotViableError)
        assert error.culprits == (SOUND,)
        assert "snd_hda_intel" in str(error)

    def test_a_group_that_another_domain_has_a_member_of(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_groups(host)
        conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)
        for wanted in (GPU, SOUND):
            error = self.refused(host, conn, Domain("vm2", [wanted]))
            assert isinstance(error, DeviceInUseError)
            assert "vm1" in str(error)

    def test_a_member_that_waits_for_its_group_is_not_free(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_groups(host)
        conn.prepare_hostdevs(Domain("vm1", [GPU, SOUND]))
        conn.reattach_pci_hostdevs("vm1", [PCIHostdev(address=GPU)])
        assert isinstance(self.refused(host, conn, Domain("vm2", [GPU])), DeviceInUseError)

    def test_members_that_do_not_block(self, host: SimulatedHost, conn: Connection) -> None:
        self.need_groups(host)
        add_card(host, "0000:09:00.0", "pcieport", 9, class_="060400", header_type=1)
        add_card(host, "0000:09:00.1", None, 9, id="8086:0001")
        add_card(host, "0000:09:00.2", self.stub, 9, id="8086:0001")
        add_card(host, "0000:09:00.3", "igb", 9)
        before = host.snapshot()
        conn.prepare_hostdevs(Domain("vm1", ["09:00.3"]))
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before

    def test_without_an_iommu(self, tmp_path: Path) -> None:
        if not self.driver.needs_iommu:
            pytest.skip("this driver needs no IOMMU")
        host = SimulatedHost.create(tmp_path / "without", iommu=False)
        add_card(host, NIC, "e1000e", 1)
        with self.connect(host) as conn:
            error = self.refused(host, conn, Domain("vm1", [NIC]))
        assert isinstance(error, NotAssignableError)
        assert "IOMMU" in str(error)
