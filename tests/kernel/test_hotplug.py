"""Devices that are pulled out, or swapped for another, while they are lent."""

from __future__ import annotations

import pytest

from hostdev_core import DeviceNotFoundError

from . import inside
from .guest import Guest, wait_until
from .hotplug import HOT, plug, unplug
from .nested_qemu import NestedQemu
from .world import DEVICES, call, hostdev, kernel_drivers, read

pytestmark = pytest.mark.case("pulled out and exchanged while lent", tool="qemu")


def test_a_lent_card_is_pulled_out_and_another_one_plugged_in(bare: Guest) -> None:
    plug(bare, "hot1")
    call(bare, inside.prepare, "vm1", [HOT])
    unplug(bare, "hot1")
    (drift,) = call(bare, inside.reload)
    assert (drift.address, drift.what) == (HOT, "gone")
    status = hostdev(bare, "status")
    assert f"{HOT} is gone" in status.stdout + status.stderr
    with pytest.raises(DeviceNotFoundError, match=HOT):
        call(bare, inside.prepare, "vm2", [HOT])
    plug(bare, "hot2")
    (drift,) = call(bare, inside.reload)
    assert (drift.address, drift.what) == (HOT, "replaced")
    assert call(bare, inside.reattach, "vm1") == (HOT,)
    assert kernel_drivers(bare, HOT) == ["e1000e"]
    assert read(bare, HOT, "driver_override") == "(null)"
    call(bare, inside.prepare, "vm1", [HOT])
    unplug(bare, "hot2")
    assert call(bare, inside.reattach, "vm1") == (HOT,)


def test_a_card_is_pulled_out_of_a_running_guest(bare: Guest) -> None:
    plug(bare, "hot3")
    (assignment,) = call(bare, inside.prepare, "vm1", [HOT])
    asked = "Relaying device request to user"
    before = bare.dmesg().count(asked)
    with NestedQemu(bare, assignment.arguments):
        bare.monitor("device_del hot3")
        # The kernel asks QEMU for the device; its guest is paused and does not let go.
        wait_until(bare, f'[ $(dmesg | grep -c "{asked}") -gt {before} ]')
        assert hostdev(bare, "status").returncode in {
            0,
            5,
        }  # the kernel has unbound it already, or not
        assert call(bare, inside.lists).active == {HOT: "vm1"}
    wait_until(bare, f"[ ! -e {DEVICES}/{HOT} ]")
    assert call(bare, inside.reattach, "vm1") == (HOT,)
