"""What others do to devices outside the ledger: before a call, in the middle of it, while they are lent."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hostdev_core import DeviceInUseError, DeviceNotFoundError, ReattachError, StateError

from . import inside, inside_others, machines
from .guest import Guest, wait_until
from .nested_qemu import NestedQemu, vfio_holder
from .test_vfio import VF, virtual_functions
from .world import DEVICES, call, hostdev, kernel_drivers, read, world

NIC, NIC2, NVME = machines.NIC, machines.NIC2, machines.NVME


def rebind(guest: Guest, address: str, driver: str, override: str = "") -> None:
    """Bind a device as an administrator does."""
    guest.check(f"modprobe vfio-pci; cd {DEVICES}/{address}; echo {driver} > driver_override"
                f" && echo {address} > driver/unbind"
                f" && echo {address} > /sys/bus/pci/drivers/{driver}/bind"
                f" && echo {override} > driver_override")  # fmt: skip


@contextmanager
def on_the_stub(guest: Guest, address: str) -> Generator[None]:
    """Somebody has bound a device to vfio-pci, and binds it back at the end."""
    rebind(guest, address, "vfio-pci", "vfio-pci")
    try:
        yield
    finally:
        rebind(guest, address, "e1000e")


@pytest.mark.case("held by somebody else's QEMU", tool="qemu")
def test_somebody_elses_qemu_keeps_its_device(bare: Guest) -> None:
    with on_the_stub(bare, NIC):
        before = world(bare)
        with NestedQemu(bare, ["-device", f"vfio-pci,host={NIC}"]) as qemu:
            with pytest.raises(DeviceInUseError, match=f"pid {qemu.pid}"):
                call(bare, inside.prepare, "vm1", [NIC])
            for words in (("prepare", "vm1", NIC2, NIC), ("device", "detach", NIC)):
                refused = hostdev(bare, *words)
                assert (refused.returncode, f"pid {qemu.pid}" in refused.stderr) == (1, True)
            for verb in ("reattach", "reset"):
                assert hostdev(bare, "device", verb, NIC).returncode == 1
            assert qemu.execute("query-status")["status"] == "prelaunch"
            assert world(bare) == before
        call(bare, inside.prepare, "vm1", [NIC])
        assert call(bare, inside.reattach, "vm1") == (NIC,)
        assert world(bare) == before


@pytest.mark.case("beside driverctl", tool="driverctl")
def test_what_driverctl_keeps_on_the_stub_stays_there(bare: Guest) -> None:
    bare.check(f"modprobe vfio-pci; driverctl set-override {NIC} vfio-pci")
    try:
        listed = bare.check("driverctl list-overrides; cat /etc/driverctl.d/*")
        assert f"{NIC} vfio-pci" in listed
        before = world(bare)
        assert before[f"{NIC} driver"] == "vfio-pci"
        call(bare, inside.prepare, "vm1", [NIC])
        bare.check(f"driverctl load-override {NIC}")  # as its udev rule does
        assert call(bare, inside.reload) == ()
        assert call(bare, inside.reattach, "vm1") == (NIC,)
        assert bare.check("driverctl list-overrides; cat /etc/driverctl.d/*") == listed
        assert world(bare) == before
    finally:
        bare.check(f"driverctl unset-override {NIC}")


@pytest.mark.case("beside driverctl", tool="driverctl")
def test_what_driverctl_tells_vfio_pci_of_twins_too(bare: Guest) -> None:
    """Newer ones make vfio-pci take all cards of these ids that have no driver."""
    override = f"modprobe vfio-pci; driverctl --nosave set-override {NIC} vfio-pci"
    try:
        bare.check(override)
        check_round_trip(bare, NIC2)
        bare.check(f"echo {NIC2} > {DEVICES}/{NIC2}/driver/unbind")
        check_round_trip(bare, NIC2)
        bare.check(f"driverctl --nosave unset-override {NIC}; {override}")
        assert kernel_drivers(bare, NIC2)[0] in {"", "vfio-pci"}
        check_round_trip(bare, NIC2)
    finally:
        bare.check(f"driverctl --nosave unset-override {NIC}")
        bare.run(f"echo {NIC2} > {DEVICES}/{NIC2}/driver/unbind")
        bare.check(f"echo {NIC2} > /sys/bus/pci/drivers/e1000e/bind")


def check_round_trip(guest: Guest, address: str) -> None:
    """The device is lent, and taken back as it was found."""
    before = world(guest)
    call(guest, inside.prepare, "vm1", [address])
    assert kernel_drivers(guest, address) == ["vfio-pci"]
    assert call(guest, inside.reattach, "vm1") == (address,)
    assert world(guest) == before


def test_nobody_slips_in_while_a_device_goes_home(bare: Guest) -> None:
    bare.check("modprobe vfio-pci")
    openings = call(bare, inside_others.open_at_each_moment, NIC)
    before_the_unbind = [opening for opening in openings if "before write" in opening.moment]
    assert len(before_the_unbind) == 4
    for opening in openings:
        if opening.had_it:
            assert opening.raised.startswith(f"DeviceInUseError: {NIC}"), opening
            assert (opening.kernel_driver, opening.lent_to) == ("vfio-pci", "vm1"), opening
        else:
            assert (opening.raised, opening.kernel_driver) == ("", "e1000e"), opening
    assert {opening.had_it for opening in before_the_unbind} == {False}
    assert {opening.had_it for opening in openings} == {False, True}


def test_a_device_is_removed_in_the_middle_of_a_prepare(bare: Guest) -> None:
    bare.check("modprobe vfio-pci")
    removals = call(bare, inside_others.remove_from_a_prepare, NIC, NIC2)
    assert len(removals) >= 15
    for removal in removals:
        assert removal.wrong == "", removal
        assert removal.recorded == ([] if removal.raised else [NIC, NIC2]), removal
    assert {bool(removal.raised) for removal in removals} == {False, True}


def test_a_device_is_removed_in_the_middle_of_a_reattach(bare: Guest) -> None:
    bare.check("modprobe vfio-pci")
    removals = call(bare, inside_others.remove_from_a_reattach, NIC, NIC2)
    assert len(removals) >= 14
    for removal in removals:
        assert removal.wrong == "", removal
        # One that is on its way out is still there, without a driver: stuck, and released the next time.
        assert removal.recorded == ([NIC] if removal.raised else []), removal
    assert [removal.raised for removal in removals].count("") > len(removals) / 2


def test_rebound_behind_our_back(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NIC, NIC2])
    rebind(bare, NIC, "e1000e")
    bare.check("modprobe pci-stub")
    rebind(bare, NIC2, "pci-stub", "pci-stub")
    drifts = {drift.address: drift.what for drift in call(bare, inside.reload)}
    assert drifts == {NIC: "rebound", NIC2: "rebound"}
    with pytest.raises(ReattachError) as raised:
        call(bare, inside.reattach, "vm1")
    (error,) = raised.value.exceptions
    assert isinstance(error, StateError)
    assert "'pci-stub'" in str(error)
    assert kernel_drivers(bare, NIC, NIC2) == ["e1000e", "pci-stub"]
    assert list(call(bare, inside.records)) == [NIC2]
    rebind(bare, NIC2, "vfio-pci", "vfio-pci")
    assert call(bare, inside.reattach, "vm1") == (NIC2,)


def test_a_virtual_function_is_taken_from_under_its_guest(bare: Guest) -> None:
    with virtual_functions(bare, 1):
        call(bare, inside.prepare, "vm1", [VF])
        with vfio_holder(bare, VF):
            zero = bare.start(f"echo 0 > {DEVICES}/{NVME}/sriov_numvfs")
            wait_until(bare, f"[ ! -e {DEVICES}/{VF}/driver ]")
            status = hostdev(bare, "status")
            assert VF in status.stdout + status.stderr
            assert call(bare, inside.lists).active == {VF: "vm1"}
            assert zero.running
        assert zero.wait().returncode == 0
        assert {d.what for d in call(bare, inside.reload)} == {"gone"}
        with pytest.raises(DeviceNotFoundError, match=VF):
            call(bare, inside.prepare, "vm2", [VF])
        assert call(bare, inside.reattach, "vm1") == (VF,)
        assert read(bare, NVME, "sriov_numvfs") == "0"
        assert kernel_drivers(bare, NVME) == ["nvme"]
