"""Several processes, and processes that are killed: devices are lent to one, and never lost."""

from __future__ import annotations

import pytest

from hostdev_core import DeviceInUseError

from . import inside, inside_processes, machines
from .guest import Guest
from .world import call, hostdev, kernel_drivers

NIC, NIC2 = machines.NIC, machines.NIC2


def test_another_process_sees_who_has_a_device(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NIC])
    assert call(bare, inside.lists).active == {NIC: "vm1"}
    with pytest.raises(DeviceInUseError, match="vm1") as refused:
        call(bare, inside.prepare, "vm2", [NIC])
    assert refused.value.used_by is not None
    assert refused.value.used_by[:3] == ("vm1", "qemu", inside.QEMU)
    assert hostdev(bare, "prepare", "vm2", NIC2, NIC).returncode == 1
    assert kernel_drivers(bare, NIC, NIC2) == ["vfio-pci", "e1000e"]
    assert call(bare, inside.reattach, "vm2") == ()
    assert call(bare, inside.reattach, "vm1") == (NIC,)


def test_one_of_two_processes_gets_the_device(bare: Guest) -> None:
    rounds = call(bare, inside_processes.race, NIC, 6)
    assert rounds == [["DeviceInUseError", "lent"]] * 6


def test_a_prepare_recovers_what_is_in_its_way(bare: Guest) -> None:
    call(bare, inside_processes.leave_half_way, "vm1", NIC)
    status = hostdev(bare, "status")
    assert (status.returncode, NIC in status.stdout) == (3, True)
    done = hostdev(bare, "prepare", "vm2", NIC)
    assert done.returncode == 0, done.stderr
    assert call(bare, inside.lists).active == {NIC: "vm2"}
    assert hostdev(bare, "reattach", "vm2").returncode == 0


def test_ctrl_c_is_undone(bare: Guest) -> None:
    assert call(bare, inside_processes.interrupted, "vm1", NIC) == "KeyboardInterrupt"
    assert kernel_drivers(bare, NIC) == ["e1000e"]


def test_a_program_with_threads_lends_by_workers(bare: Guest) -> None:
    times = 3
    answers = call(bare, inside_processes.lend_by_workers, NIC, times)
    assert answers == [(NIC,)] * 2 * times
    assert kernel_drivers(bare, NIC) == ["e1000e"]
    bare.check('test -z "$(ls /run/hostdev/op)"')
