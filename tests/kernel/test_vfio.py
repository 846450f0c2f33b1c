"""PCI devices lent to QEMU on a real kernel, and what they are when they are back."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hostdev_core import (
    DeviceInUseError,
    GroupNotViableError,
    HostdevError,
    NotAssignableError,
    PCIHostdev,
    PrepareFlags,
)

from . import inside, inside_trips, machines
from .guest import Guest
from .nested_qemu import NestedQemu
from .world import DEVICES, call, hostdev, kernel_drivers, mac_address, read, world, write

pytestmark = pytest.mark.case("lent by VFIO, opened by QEMU, given back", tool="qemu")

NIC, NIC2, NVME = machines.NIC, machines.NIC2, machines.NVME
VF, VF2 = "0000:03:00.1", "0000:03:00.2"


@pytest.mark.case("the command lends to a QEMU and takes back", tool="qemu", always=True)
def test_the_command_lends_to_a_real_qemu_and_takes_back_afterwards(bare: Guest) -> None:
    mac = mac_address(bare, NIC)
    write(bare, NIC, "power/control", "auto")
    before = world(bare)
    try:
        done = bare.hostdev("prepare", "vm1", NIC, "--json")
        assert done.returncode == 0, done.stderr
        (assignment,) = json.loads(done.stdout)["assignments"]
        assert kernel_drivers(bare, NIC) == ["vfio-pci"]
        with NestedQemu(bare, assignment["arguments"]) as qemu:
            assert (0x8086, 0x10D3) in seen_by(qemu)
            refused = bare.hostdev("reattach", "vm1")
            assert refused.returncode in {1, 3}
            assert f"pid {qemu.pid}" in refused.stderr
            assert (0x8086, 0x10D3) in seen_by(qemu)
            assert kernel_drivers(bare, NIC) == ["vfio-pci"]
            assert call(bare, inside.lists).active == {NIC: "vm1"}
        done = bare.hostdev("reattach", "vm1", "--json")
        assert json.loads(done.stdout)["returned"] == [NIC], done.stderr
        assert mac_address(bare, NIC) == mac
        assert read(bare, NIC, "driver_override") == "(null)"
        assert world(bare) == before
    finally:
        write(bare, NIC, "power/control", "on")


def seen_by(qemu: NestedQemu) -> list[tuple[int, int]]:
    """Vendor and device of what a QEMU's guest sees."""
    ids = [device["id"] for device in qemu.pci_devices()]
    return [(each["vendor"], each["device"]) for each in ids]


def test_a_network_card_and_a_disk_in_one_call(bare: Guest) -> None:
    nic, disk = call(bare, inside.prepare, "vm1", [NIC, NVME])
    assert nic.arguments == ("-device", f"vfio-pci,host={NIC}")
    assert kernel_drivers(bare, NIC, NVME) == ["vfio-pci", "vfio-pci"]
    bare.check(f"test -c {nic.node} && test -c {disk.node} && test {nic.node} != {disk.node}")
    assert sorted(call(bare, inside.reattach, "vm1")) == [NIC, NVME]
    bare.check(f"udevadm settle; test -b /dev/$(ls {DEVICES}/{NVME}/nvme)n1")


def test_nothing_is_lent_when_one_of_them_cannot_be(bare: Guest) -> None:
    port = bare.check(f"readlink -f {DEVICES}/{NIC}").split("/")[-2]
    before = world(bare)
    for other in (machines.CHIPSET[1], "0000:1f:00.0", port, NIC):
        with pytest.raises(HostdevError, match=other):
            call(bare, inside.prepare, "vm1", [NIC, other])
    assert world(bare) == before


@contextmanager
def virtual_functions(guest: Guest, number: int) -> Generator[None]:
    """Make virtual functions of the NVMe, without a driver, and remove them.

    The nvme driver would bind them and let go again, some time later: nobody has set them online.
    """
    write(guest, NVME, "sriov_drivers_autoprobe", "0")
    write(guest, NVME, "sriov_numvfs", str(number))
    try:
        yield
    finally:
        write(guest, NVME, "sriov_numvfs", "0")
        write(guest, NVME, "sriov_drivers_autoprobe", "1")


@pytest.mark.case("virtual functions of an NVMe")
def test_a_virtual_function_is_lent_and_its_parent_is_not(bare: Guest) -> None:
    with virtual_functions(bare, 2):
        before = world(bare)
        with pytest.raises(NotAssignableError, match=f"{VF}, {VF2}"):
            call(bare, inside.prepare, "vm2", [NVME])
        call(bare, inside.prepare, "vm1", [VF])
        with pytest.raises(DeviceInUseError, match=f"{NVME}.*{VF}.*vm1"):
            call(bare, inside.prepare, "vm2", [NVME])
        assert kernel_drivers(bare, NVME, VF) == ["nvme", "vfio-pci"]
        call(bare, inside.prepare, "vm2", [VF2])
        assert call(bare, inside.lists).active == {VF: "vm1", VF2: "vm2"}
        for name in ("vm1", "vm2"):
            call(bare, inside.reattach, name)
        assert world(bare) == before


@pytest.mark.case("virtual functions of an NVMe")
def test_a_virtual_function_of_a_lent_parent_is_refused(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NVME])
    parameter = "/sys/module/vfio_pci/parameters/enable_sriov"
    bare.check(f"echo Y > {parameter}")
    try:
        refused = pytest.raises((DeviceInUseError, NotAssignableError), match=NVME)
        with virtual_functions(bare, 1), refused:
            call(bare, inside.prepare, "vm2", [VF])
    finally:
        bare.check(f"echo N > {parameter}")
        call(bare, inside.reattach, "vm1")


@pytest.mark.case("several functions in one IOMMU group", tool="qemu")
def test_the_chipset_is_refused_with_its_culprits_and_lent_as_a_whole(bare: Guest) -> None:
    bridge, disk, smbus = machines.CHIPSET
    before = world(bare)
    with pytest.raises(GroupNotViableError, match=r"lpc_ich.*i801_smbus") as refused:
        call(bare, inside.prepare, "vm1", [disk])
    assert refused.value.culprits == (bridge, smbus)
    assert world(bare) == before
    (assignment,) = call(bare, inside.prepare, "vm1", [disk], PrepareFlags.WHOLE_GROUP)
    assert kernel_drivers(bare, *machines.CHIPSET) == ["vfio-pci"] * 3
    assert call(bare, inside.lists).active == {disk: "vm1"}
    with NestedQemu(bare, assignment.arguments) as qemu:
        assert (0x8086, 0x2922) in seen_by(qemu)
    call(bare, inside.reattach, "vm1")
    assert world(bare) == before


def test_detached_by_hand_lent_unmanaged_and_reset(bare: Guest) -> None:
    with pytest.raises(NotAssignableError, match="detach it first"):
        call(bare, inside.prepare, "vm1", [PCIHostdev(address=NIC, managed=False)])
    refused = hostdev(bare, "device", "reset", NIC)
    assert (refused.returncode, "e1000e" in refused.stderr) == (1, True)
    assert hostdev(bare, "device", "detach", NIC).returncode == 0
    assert hostdev(bare, "device", "detach", NIC).returncode == 0
    assert kernel_drivers(bare, NIC) == ["vfio-pci"]
    assert call(bare, inside.lists) == ({}, [NIC], {})
    done = hostdev(bare, "device", "reset", NIC)
    assert done.returncode == 0, done.stderr
    done = hostdev(bare, "prepare", "vm1", NIC, "--unmanaged")
    assert done.stdout.split() == ["-device", f"vfio-pci,host={NIC}"], done.stderr
    assert call(bare, inside.lists) == ({NIC: "vm1"}, [], {})
    assert hostdev(bare, "device", "reset", NIC).returncode == 1
    assert hostdev(bare, "device", "reattach", NIC).returncode == 1
    assert hostdev(bare, "reattach", "vm1").returncode == 0
    assert kernel_drivers(bare, NIC) == ["vfio-pci"]
    assert call(bare, inside.lists) == ({}, [NIC], {})
    assert hostdev(bare, "device", "reattach", NIC).returncode == 0
    assert kernel_drivers(bare, NIC) == ["e1000e"]


@pytest.fixture(scope="module")
def trips(bare: Guest) -> dict[str, inside_trips.Trip]:
    """What became of a device in every state that it may be found in."""
    bare.check("modprobe vfio-pci")
    return call(bare, inside_trips.round_trips, NIC2, "vfio-pci")


@pytest.mark.parametrize("found", inside_trips.FOUND)
def test_a_device_comes_back_as_found(found: str, trips: dict[str, inside_trips.Trip]) -> None:
    trip = trips[found]
    assert trip.lent.kernel_driver == "vfio-pci"
    assert trip.after == trip.before
    assert trip.inactive == ([NIC2] if found.startswith("unmanaged") else [])
