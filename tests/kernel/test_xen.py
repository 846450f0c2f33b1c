"""Devices lent to Xen in a real dom0."""

from __future__ import annotations

import json

import pytest

from hostdev_core import DeviceInUseError, NotAssignableError, OpenError, ReattachError

from . import inside, inside_trips, machines
from .domu import pv_domain
from .guest import Guest
from .hotplug import HOT, plug, unplug
from .inside_kills import check_nothing_lost, kill_everywhere
from .world import call, kernel_drivers, mac_address, read, settled, world

pytestmark = pytest.mark.case("lent to Xen, used by a PV domain, given back", tool="xen")

NIC, NVME, XHCI = machines.XEN_NIC, machines.XEN_NVME, machines.XEN_XHCI
SLOTS = "/sys/bus/pci/drivers/pciback/slots"


def assignable(guest: Guest) -> list[str]:
    """What xl would hand to a domain."""
    return guest.check("xl pci-assignable-list").split()


def test_the_command_makes_a_device_assignable_and_takes_it_back(dom0: Guest) -> None:
    mac, before = mac_address(dom0, NIC), world(dom0)
    done = dom0.hostdev("prepare", "guest1", NIC, "--json")
    (assignment,) = json.loads(done.stdout)["assignments"]
    assert assignment["arguments"] == [f"pci=['{NIC}']"]
    assert kernel_drivers(dom0, NIC) == ["pciback"]
    assert assignable(dom0) == [NIC]
    assert NIC in dom0.check(f"cat {SLOTS}")
    (used,) = call(dom0, inside.lists).active.items()
    assert used == (NIC, "guest1")
    done = dom0.hostdev("reattach", "guest1")
    assert done.returncode == 0, done.stderr
    assert assignable(dom0) == []
    assert mac_address(dom0, NIC) == mac
    assert world(dom0) == before


def test_the_state_is_shared_by_all_connections(dom0: Guest) -> None:
    call(dom0, inside.prepare, "guest1", [NIC])
    assert call(dom0, inside.lists, uri=inside.QEMU).active == {NIC: "guest1"}
    with pytest.raises(NotAssignableError, match="no IOMMU"):
        call(dom0, inside.prepare, "guest1", [NVME], uri=inside.QEMU)
    with pytest.raises(DeviceInUseError, match="libxl"):
        call(dom0, inside.prepare, "guest1", [NIC], uri=inside.QEMU)
    assert call(dom0, inside.reattach, "guest1", uri=inside.QEMU) == ()
    assert call(dom0, inside.reattach, "guest1") == (NIC,)


def test_a_network_card_a_disk_and_a_usb_controller_at_once(dom0: Guest) -> None:
    call(dom0, inside.prepare, "guest1", [NIC, NVME, XHCI])
    assert sorted(assignable(dom0)) == [NIC, NVME, XHCI]
    assert sorted(call(dom0, inside.reattach, "guest1")) == [NIC, NVME, XHCI]
    assert kernel_drivers(dom0, NIC, NVME, XHCI) == ["e1000e", "nvme", "xhci_hcd"]


def check_kept(dom0: Guest, address: str, guest: str) -> None:
    """The device of guest1 is not taken back while a running domain has it."""
    with pytest.raises(ReattachError) as raised:
        call(dom0, inside.reattach, "guest1")
    (error,) = raised.value.exceptions
    assert isinstance(error, DeviceInUseError)
    assert guest in error.holders[0]
    assert address in dom0.check(f"xl pci-list {guest}")


def test_a_device_of_a_running_domain_is_not_torn_away(dom0: Guest) -> None:
    call(dom0, inside.prepare, "guest1", [NIC])
    with pv_domain(dom0, "guest1", [NIC]):
        check_kept(dom0, NIC, "guest1")
        assert kernel_drivers(dom0, NIC) == ["pciback"]
        assert call(dom0, inside.lists).active == {NIC: "guest1"}
    assert call(dom0, inside.reattach, "guest1") == (NIC,)
    assert kernel_drivers(dom0, NIC) == ["e1000e"]


def test_what_xl_made_assignable_is_somebody_elses(dom0: Guest) -> None:
    dom0.check(f"modprobe xen-pciback; xl pci-assignable-add {NVME}")
    with pytest.raises(NotAssignableError, match=f"xl pci-assignable-remove {NVME}"):
        call(dom0, inside.prepare, "guest1", [NVME])
    assert assignable(dom0) == [NVME]
    dom0.check(f"xl pci-assignable-remove -r {NVME}")
    call(dom0, inside.prepare, "guest1", [NVME])
    assert call(dom0, inside.reattach, "guest1") == (NVME,)


def test_what_a_lost_ledger_left_goes_home_with_its_slot(dom0: Guest) -> None:
    """hostdev binds by a driver_override, xl by a slot alone: that tells them apart."""
    dom0.check("modprobe xen-pciback")
    mac, before = mac_address(dom0, NIC), world(dom0)
    call(dom0, inside.prepare, "guest1", [NIC])
    dom0.check(f"rm -r /run/hostdev; xl pci-assignable-add {NVME}")
    assert read(dom0, NVME, "driver_override") == "(null)"
    refused = dom0.hostdev("device", "reattach", "--to-host", NVME)
    assert f"xl pci-assignable-remove -r {NVME}" in refused.stderr, refused
    assert sorted(assignable(dom0)) == [NIC, NVME]
    dom0.check(f"xl pci-assignable-remove -r {NVME}")
    sent = dom0.hostdev("device", "reattach", "--to-host", NIC)
    assert sent.stdout == f"{NIC} is on e1000e, the host's own driver\n", sent.stderr
    assert (assignable(dom0), dom0.check(f"cat {SLOTS}")) == ([], "")
    assert mac_address(dom0, NIC) == mac
    assert settled(dom0, before) == before
    call(dom0, inside.prepare, "guest1", [NIC])
    assert call(dom0, inside.reattach, "guest1") == (NIC,)


def test_what_xl_does_with_a_lent_device_is_undone(dom0: Guest) -> None:
    call(dom0, inside.prepare, "guest1", [NIC])
    dom0.run(f"xl pci-assignable-add {NIC}")
    assert call(dom0, inside.reload) == ()
    assert call(dom0, inside.reattach, "guest1") == (NIC,)
    assert kernel_drivers(dom0, NIC) == ["e1000e"]
    call(dom0, inside.prepare, "guest1", [NIC])
    # xl takes it away but cannot bind it to e1000e, for our driver_override is still there.
    assert "bind" in dom0.run(f"xl pci-assignable-remove -r {NIC}").stderr
    assert kernel_drivers(dom0, NIC) == [""]
    assert [drift.what for drift in call(dom0, inside.reload)] == ["rebound"]
    assert call(dom0, inside.reattach, "guest1") == (NIC,)


def test_a_slot_that_was_there_before_stays(dom0: Guest) -> None:
    dom0.check(f"modprobe xen-pciback; echo {NIC} > /sys/bus/pci/drivers/pciback/new_slot")
    try:
        call(dom0, inside.prepare, "guest1", [NIC])
        assert call(dom0, inside.reattach, "guest1") == (NIC,)
        assert kernel_drivers(dom0, NIC) == ["e1000e"]
        assert NIC in dom0.check(f"cat {SLOTS}")
    finally:
        dom0.check(f"echo {NIC} > /sys/bus/pci/drivers/pciback/remove_slot")


@pytest.fixture
def late_e1000e(dom0: Guest) -> None:
    """The driver is loaded after pciback, which is asked first about a card that is plugged in."""
    dom0.check("modprobe xen-pciback; modprobe -r e1000e; modprobe e1000e; udevadm settle")


def exchange_lent(guest: Guest, first: str, second: str) -> None:
    """A card is lent to guest1 and pulled out; our slot seizes the one that comes in its place."""
    plug(guest, first, "e1000e")
    call(guest, inside.prepare, "guest1", [HOT])
    unplug(guest, first)
    plug(guest, second, "pciback")


@pytest.mark.usefixtures("late_e1000e")
def test_a_card_that_our_slot_seized_goes_to_its_driver(dom0: Guest) -> None:
    exchange_lent(dom0, "hot1", "hot2")
    (drift,) = call(dom0, inside.reload)
    assert (drift.address, drift.what) == (HOT, "replaced")
    assert call(dom0, inside.reattach, "guest1") == (HOT,)
    assert kernel_drivers(dom0, HOT) == ["e1000e"]
    assert read(dom0, HOT, "driver_override") == "(null)"
    assert assignable(dom0) == []
    assert dom0.check(f"cat {SLOTS}") == ""
    call(dom0, inside.prepare, "guest1", [HOT])
    unplug(dom0, "hot2")
    assert call(dom0, inside.reattach, "guest1") == (HOT,)
    assert dom0.check(f"cat {SLOTS}") == ""


@pytest.mark.usefixtures("late_e1000e")
def test_a_card_that_our_slot_seized_is_lent_from_its_driver(dom0: Guest) -> None:
    exchange_lent(dom0, "hot5", "hot6")
    said = dom0.hostdev("status").stderr
    assert ("is replaced" in said, "no record" in said) == (True, False), said
    call(dom0, inside.prepare, "guest2", [HOT])
    assert assignable(dom0) == [HOT]
    assert call(dom0, inside.reattach, "guest2") == (HOT,)
    assert kernel_drivers(dom0, HOT) == ["e1000e"]
    assert dom0.check(f"cat {SLOTS}") == ""
    unplug(dom0, "hot6")


@pytest.mark.usefixtures("late_e1000e")
def test_a_seized_card_that_a_guest_has_stays_there(dom0: Guest) -> None:
    plug(dom0, "hot3", "e1000e")
    call(dom0, inside.prepare, "guest1", [HOT])
    unplug(dom0, "hot3")
    plug(dom0, "hot4", "pciback")
    with pv_domain(dom0, "guest2", [HOT]):
        check_kept(dom0, HOT, "guest2")
    assert call(dom0, inside.reattach, "guest1") == (HOT,)
    assert kernel_drivers(dom0, HOT) == ["e1000e"]
    unplug(dom0, "hot4")


@pytest.fixture(scope="module")
def trips(dom0: Guest) -> dict[str, inside_trips.Trip]:
    """What became of a device in every state that it may be found in."""
    dom0.check("modprobe xen-pciback")
    return call(dom0, inside_trips.round_trips, NIC, "pciback")


@pytest.mark.parametrize("found", inside_trips.FOUND)
def test_a_device_comes_back_as_found(found: str, trips: dict[str, inside_trips.Trip]) -> None:
    trip = trips[found]
    assert trip.lent.kernel_driver == "pciback"
    assert trip.after == trip.before
    assert trip.inactive == ([NIC] if found.startswith("unmanaged") else [])


@pytest.mark.parametrize(("verb", "writes"), [("prepare", 4), ("reattach", 5)])
def test_killed_at_every_moment(dom0: Guest, verb: str, writes: int) -> None:
    dom0.check("modprobe xen-pciback")
    report = call(dom0, kill_everywhere, verb, [NIC], uri="xen:///system")
    check_nothing_lost(report, writes)
    assert assignable(dom0) == []


@pytest.mark.case("Xen is refused where there is none")
def test_xen_is_refused_where_there_is_none(bare: Guest) -> None:
    with pytest.raises(OpenError, match="dom0"):
        call(bare, inside.lists, uri="xen:///system")
