"""The contract: devices are lent, and are as they were found when they are back."""

from typing import Any

import pytest

from hostdev_core import (
    Connection,
    DeviceNotFoundError,
    Domain,
    PCIHostdev,
    PrepareFlags,
    UsedBy,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import (
    DISK,
    GPU,
    NIC,
    SOUND,
    ContractBase,
    add_card,
    driver_of,
    names,
    own_files,
)

OTHER = "0000:08:00.0"
FOUND: dict[str, dict[str, Any]] = {
    "on its driver": {"kernel_driver": "e1000e"},
    "without a driver": {"kernel_driver": None},
    "with an override": {"kernel_driver": "e1000e", "driver_override": "e1000e"},
    "driverless with an override": {"kernel_driver": None, "driver_override": "e1000e"},
    "on the stub": {"kernel_driver": "STUB", "driver_override": "STUB"},
    "on the stub without an override": {"kernel_driver": "STUB"},
    "with power control": {"kernel_driver": "e1000e", "power_control": "auto"},
}


class RoundTrips(ContractBase):
    """Prepare and reattach, in every state that a device may be found in."""

    @pytest.mark.parametrize("found", FOUND.values(), ids=FOUND.keys())
    def test_a_managed_device_comes_back_as_found(
        self, host: SimulatedHost, conn: Connection, found: dict[str, Any]
    ) -> None:
        found = {key: self.stub if value == "STUB" else value for key, value in found.items()}
        add_card(host, OTHER, found.pop("kernel_driver"), 8, **found)
        before = host.snapshot()
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [OTHER]))
        assert self.is_lent(host, assignment.device)
        assert names(conn.get_active_pci_hostdev_list()) == [OTHER]
        assert names(conn.get_domain_active_pci_hostdev_list("vm1")) == [OTHER]
        assert conn.get_domain_active_pci_hostdev_list("vm2") == ()
        assert conn.reattach_hostdevs("vm1") == (OTHER,)
        assert host.snapshot() == before
        assert host.ledger.records() == []

    def test_it_leaves_no_file_of_its_own(self, host: SimulatedHost, conn: Connection) -> None:
        vm1 = Domain("vm1", [NIC, DISK])
        before = own_files(host)
        conn.plan(vm1)
        assert own_files(host) == before, "check_device and extra_steps must only look"
        conn.prepare_hostdevs(vm1)
        conn.reattach_hostdevs("vm1")
        assert own_files(host) == before, "undo_step must undo what run_step did"

    def test_another_process_undoes_what_was_done_for_its_device_alone(
        self, host: SimulatedHost
    ) -> None:
        """A driver keeps nothing in itself: each connection here has one of its own."""
        before = own_files(host)
        with self.connect(host) as conn:
            conn.prepare_hostdevs(Domain("vm2", [DISK]))
        others = own_files(host)
        with self.connect(host) as conn:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        with self.connect(host) as conn:
            conn.reattach_hostdevs("vm1")
        assert own_files(host) == others, (
            "undo_step must undo what run_step did for its device alone"
        )
        with self.connect(host) as conn:
            conn.reattach_hostdevs("vm2")
        assert own_files(host) == before, "undo_step must undo what another process has done"

    def test_an_assignment_for_each_hostdev_in_their_order(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_usb()
        host.add_usb("1-1")
        before = host.snapshot()
        domain = Domain("vm1", [DISK, "1-1", NIC])
        assignments = conn.prepare_hostdevs(domain)
        assert [str(a.hostdev) for a in assignments] == [DISK, "1-1", NIC]
        assert names([a.device for a in assignments]) == [DISK, "1-1", NIC]
        owner = UsedBy("vm1", self.driver.name, conn.uri)
        assert {d.used_by for d in conn.get_active_pci_hostdev_list()} == {owner}
        assert {d.used_by for d in conn.get_active_usb_hostdev_list()} == {owner}
        assert {d.name for d in conn.list_devices() if d.used_by == owner} == {DISK, "1-1", NIC}
        assert sorted(conn.reattach_hostdevs("vm1")) == sorted([DISK, "1-1", NIC])
        assert host.snapshot() == before

    def test_a_part_is_prepared_and_given_back_alone(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_usb()
        host.add_usb("1-1")
        before = host.snapshot()
        domain = Domain("vm1", [NIC, DISK, "1-1"])
        nic, disk, mouse = domain.hostdevs
        conn.prepare_pci_hostdevs(domain, [nic, disk])
        assert conn.get_active_usb_hostdev_list() == ()
        conn.prepare_usb_hostdevs(domain, [mouse])
        assert conn.reattach_pci_hostdevs(domain, [disk]) == (DISK,)
        assert names(conn.get_active_pci_hostdev_list()) == [NIC]
        assert conn.reattach_usb_hostdevs(domain, [mouse]) == ("1-1",)
        assert conn.get_active_usb_hostdev_list() == ()
        assert conn.reattach_hostdevs(domain) == (NIC,)
        assert host.snapshot() == before

    def test_nothing_held_is_no_error(self, host: SimulatedHost, conn: Connection) -> None:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert conn.reattach_hostdevs("vm2") == ()
        assert names(conn.get_active_pci_hostdev_list()) == [NIC]
        assert conn.prepare_hostdevs(Domain("vm3")) == ()

    def test_the_same_owner_again_where_that_is_allowed(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        domain = Domain("vm1", [NIC])
        first = conn.prepare_hostdevs(domain)
        lent = host.snapshot()
        assert conn.prepare_hostdevs(domain, PrepareFlags.ALLOW_SAME_OWNER) == first
        more = conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]), PrepareFlags.ALLOW_SAME_OWNER)
        assert more[0] == first[0]
        assert host.snapshot()[NIC] == lent[NIC]
        assert sorted(conn.reattach_hostdevs("vm1")) == [NIC, DISK]

    def test_a_lent_device_that_was_pulled_out_is_released(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        host.unplug(NIC)
        assert [drift.what for drift in conn.reload()] == ["gone"]
        assert sorted(conn.reattach_hostdevs("vm1")) == [NIC, DISK]
        assert host.ledger.records() == []

    def test_a_new_card_at_the_address_of_a_lent_one_is_left_alone(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        """Under Xen it may find itself on pciback, by the slot of the lent one: till that is given back."""
        conn.prepare_hostdevs(Domain("vm1", [DISK]))
        host.unplug(DISK)
        add_card(host, DISK, "igb", 9, id="8086:1521")
        now = host.snapshot()
        assert [drift.what for drift in conn.reload()] == ["replaced"]
        assert conn.reattach_hostdevs("vm1") == (DISK,)
        assert host.snapshot()[DISK] == {**now[DISK], "kernel_driver": "igb"}
        assert host.snapshot()["pciback"] == {"slots": []}
        assert host.ledger.records() == []


class GroupRoundTrips(ContractBase):
    """Devices that share an IOMMU group."""

    def test_two_of_one_group(self, host: SimulatedHost, conn: Connection) -> None:
        before = host.snapshot()
        assignments = conn.prepare_hostdevs(Domain("vm1", [GPU, SOUND]))
        assert all(self.is_lent(host, a.device) for a in assignments)
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before

    def test_the_whole_group_is_taken_on_request(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_groups(host)
        before = host.snapshot()
        assignments = conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)
        assert names([a.device for a in assignments]) == [GPU]
        assert driver_of(host, SOUND) != "snd_hda_intel"
        assert names(conn.get_active_pci_hostdev_list()) == [GPU]
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before
        assert host.ledger.records() == []

    def test_a_sibling_that_was_taken_can_be_asked_for_by_name(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_groups(host)
        before = host.snapshot()
        conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [SOUND]))
        assert self.is_lent(host, assignment.device)
        assert names(conn.get_active_pci_hostdev_list()) == [GPU, SOUND]
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before

    def test_a_member_waits_on_its_stub_for_the_rest_of_its_group(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        self.need_groups(host)
        before = host.snapshot()
        gpu, sound = PCIHostdev(address=GPU), PCIHostdev(address=SOUND)
        conn.prepare_hostdevs(Domain("vm1", [gpu, sound]))
        lent = host.snapshot()
        conn.reattach_pci_hostdevs("vm1", [gpu])
        assert host.snapshot() == lent
        assert names(conn.get_active_pci_hostdev_list()) == [SOUND]
        conn.reattach_pci_hostdevs("vm1", [sound])
        assert host.snapshot() == before
        assert host.ledger.records() == []


class InactiveList(ContractBase):
    """Devices that were detached by hand."""

    def unmanaged(self, address: str) -> Domain:
        """A domain that wants a device as it is."""
        hostdev = PCIHostdev(address=address, managed=False)
        return Domain("vm1", [hostdev])

    def test_detach_and_reattach_one_device(self, host: SimulatedHost, conn: Connection) -> None:
        before = host.snapshot()
        conn.detach_device(NIC)
        detached = host.snapshot()
        conn.detach_device(NIC)
        assert host.snapshot() == detached != before
        assert names(conn.get_inactive_pci_hostdev_list()) == [NIC]
        assert conn.get_active_pci_hostdev_list() == ()
        conn.reattach_device(NIC)
        assert host.snapshot() == before
        assert host.ledger.records() == []

    @pytest.mark.parametrize("managed", [True, False])
    def test_a_detached_device_goes_back_to_the_list(
        self, host: SimulatedHost, conn: Connection, managed: bool
    ) -> None:
        before = host.snapshot()
        conn.detach_device(NIC)
        detached = host.snapshot()
        conn.prepare_hostdevs(Domain("vm1", [NIC]) if managed else self.unmanaged(NIC))
        assert conn.get_inactive_pci_hostdev_list() == ()
        assert names(conn.get_active_pci_hostdev_list()) == [NIC]
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == detached
        assert names(conn.get_inactive_pci_hostdev_list()) == [NIC]
        conn.reattach_device(NIC)
        assert host.snapshot() == before

    def test_an_unmanaged_device_on_a_stub_stays_there(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        add_card(host, OTHER, self.stub, 8, driver_override=self.stub)
        before = host.snapshot()
        conn.prepare_hostdevs(self.unmanaged(OTHER))
        conn.reattach_hostdevs("vm1")
        assert host.snapshot() == before
        assert names(conn.get_inactive_pci_hostdev_list()) == [OTHER]
        conn.reattach_device(OTHER)
        assert host.snapshot() == before
        assert host.ledger.records() == []

    def test_only_what_was_detached_is_given_back(
        self, host: SimulatedHost, conn: Connection
    ) -> None:
        with pytest.raises(DeviceNotFoundError, match=NIC):
            conn.reattach_device(NIC)

    def test_a_detached_device_can_be_reset(self, host: SimulatedHost, conn: Connection) -> None:
        conn.detach_device(NIC)
        conn.reset_device(NIC)
        assert host.writes()[-1] == (f"bus/pci/devices/{NIC}/reset", "1")
        conn.reattach_device(NIC)
