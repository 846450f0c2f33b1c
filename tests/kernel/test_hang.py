"""A kernel that does not return: a process holds the device while it is unbound."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hostdev_core import DeviceInUseError, KernelTimeoutError, ReattachError

from . import inside, inside_processes, machines
from .guest import Guest, wait_until
from .nested_qemu import vfio_holder
from .world import call, hostdev, kernel_drivers

NIC, NIC2 = machines.NIC, machines.NIC2


def others_go_on(guest: Guest) -> None:
    """Looking, and another domain's prepare and reattach, are in nobody's way."""
    for words in (("list",), ("show", NIC2), ("plan", "vm2", NIC), ("prepare", "vm2", NIC)):
        done = hostdev(guest, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert kernel_drivers(guest, NIC) == ["vfio-pci"]
    assert hostdev(guest, "reattach", "vm2").returncode == 0
    assert kernel_drivers(guest, NIC) == ["e1000e"]


@pytest.mark.parametrize("alone", [False, True], ids=["a hypervisor", "its descriptor alone"])
def test_an_unbind_that_hangs_is_left_at_the_deadline_and_ends_by_itself(
    bare: Guest, alone: bool
) -> None:
    call(bare, inside.prepare, "vm1", [NIC2])
    with vfio_holder(bare, NIC2, alone=alone) as pid:
        with pytest.raises(ReattachError) as raised:
            call(bare, inside_processes.reattach_unguarded, "vm1", 3.0)
        (error,) = raised.value.exceptions
        assert isinstance(error, KernelTimeoutError)
        assert [f"pid {pid}," in holder for holder in error.holders] == [True]
        status = hostdev(bare, "status")
        assert status.returncode == 3
        assert f"pid {pid}," in status.stdout
        assert NIC2 in status.stdout
        others_go_on(bare)
        refused = hostdev(bare, "prepare", "vm2", NIC2)
        assert (refused.returncode, "reattach vm1" in refused.stderr) == (1, True)
        assert NIC2 in call(bare, inside.records)
    wait_until(bare, f"[ -e /sys/bus/pci/drivers/e1000e/{NIC2} ]")
    wait_until(bare, '[ -z "$(ls /run/hostdev/op)" ]')
    assert call(bare, inside.records) == {}


@pytest.mark.parametrize("alone", [False, True], ids=["a hypervisor", "its descriptor alone"])
def test_a_guarded_device_is_not_even_asked_for(bare: Guest, alone: bool) -> None:
    call(bare, inside.prepare, "vm1", [NIC2])
    asked = "blocked until released by user"
    before = bare.dmesg().count(asked)
    with vfio_holder(bare, NIC2, alone=alone) as pid:
        with pytest.raises(ReattachError) as raised:
            call(bare, inside.reattach, "vm1")
        (error,) = raised.value.exceptions
        assert isinstance(error, DeviceInUseError)
        assert f"pid {pid}" in str(error)
        assert kernel_drivers(bare, NIC2) == ["vfio-pci"]
        assert bare.dmesg().count(asked) == before
    assert call(bare, inside.reattach, "vm1") == (NIC2,)


@contextmanager
def hanging(guest: Guest, address: str) -> Generator[int]:
    """Somebody else unbinds a device from vfio-pci that a process holds, and hangs; the holder's pid."""
    with vfio_holder(guest, address) as pid:
        unbind = guest.start(f"echo {address} > /sys/bus/pci/drivers/vfio-pci/unbind")
        wait_until(guest, f"[ ! -e /sys/bus/pci/devices/{address}/driver ]")
        yield pid
        assert unbind.running
    assert unbind.wait().returncode == 0


def test_a_lent_device_that_hangs_behind_our_back(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NIC2])
    with hanging(bare, NIC2) as pid:
        status = hostdev(bare, "status")
        assert "rebound" in status.stdout + status.stderr
        others_go_on(bare)
        refused = hostdev(bare, "reattach", "vm1", "--timeout", "3")
        assert refused.returncode in {1, 3}
        assert f"pid {pid}," in refused.stderr
    assert call(bare, inside.reattach, "vm1") == (NIC2,)


def test_a_free_device_that_hangs_is_refused_at_the_deadline(bare: Guest) -> None:
    bare.check(f"modprobe vfio-pci; cd /sys/bus/pci/devices/{NIC2}"
               f" && echo vfio-pci > driver_override && echo {NIC2} > driver/unbind"
               f" && echo {NIC2} > /sys/bus/pci/drivers/vfio-pci/bind")  # fmt: skip
    with hanging(bare, NIC2) as pid:
        started = time.monotonic()
        refused = hostdev(bare, "prepare", "vm1", NIC2, "--timeout", "3")
        assert time.monotonic() - started < 30
        assert refused.returncode in {1, 3}
        assert NIC2 in refused.stderr
        assert f"pid {pid}," in refused.stderr
        others_go_on(bare)
    assert call(bare, inside.records) == {}
    bare.check(f"echo > /sys/bus/pci/devices/{NIC2}/driver_override"
               f" && echo {NIC2} > /sys/bus/pci/drivers/e1000e/bind")  # fmt: skip


def test_a_caller_that_is_killed_leaves_the_work_to_its_worker(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NIC2])
    with vfio_holder(bare, NIC2):
        assert call(bare, inside_processes.kill_the_caller, "vm1", NIC2) == signal.SIGKILL
        assert hostdev(bare, "recover").returncode in {0, 3}
        assert kernel_drivers(bare, NIC2) == [""]
    wait_until(bare, f"[ -e /sys/bus/pci/drivers/e1000e/{NIC2} ]")
    wait_until(bare, '[ -z "$(ls /run/hostdev/op)" ]')
