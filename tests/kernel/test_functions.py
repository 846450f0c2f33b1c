"""Cards of several functions, real and virtual, whose drivers bind them by themselves."""

from __future__ import annotations

import pytest

from hostdev_core import (
    DeviceInUseError,
    GroupNotViableError,
    NotAssignableError,
    PrepareFlags,
    ReattachError,
)

from . import inside, machines
from .guest import Guest
from .nested_qemu import NestedQemu
from .test_vfio import seen_by
from .world import call, kernel_drivers, settled, world, write

LEFT, RIGHT = machines.TWINS
IGB = machines.IGB
VF, VF2 = machines.IGB_VFS


@pytest.mark.case("several functions in one IOMMU group", tool="qemu")
def test_a_card_of_two_functions_is_lent_as_a_whole(functions: Guest) -> None:
    before = world(functions)
    with pytest.raises(GroupNotViableError) as refused:
        call(functions, inside.prepare, "vm1", [LEFT])
    assert refused.value.culprits == (RIGHT,)
    assert world(functions) == before
    (assignment,) = call(functions, inside.prepare, "vm1", [LEFT], PrepareFlags.WHOLE_GROUP)
    with NestedQemu(functions, assignment.arguments) as qemu:
        assert seen_by(qemu).count((0x8086, 0x10D3)) == 1
        assert kernel_drivers(functions, LEFT, RIGHT) == ["vfio-pci"] * 2
    call(functions, inside.reattach, "vm1")
    both = call(functions, inside.prepare, "vm1", [LEFT, RIGHT])
    with NestedQemu(functions, [word for each in both for word in each.arguments]) as qemu:
        assert seen_by(qemu).count((0x8086, 0x10D3)) == 2
    call(functions, inside.reattach, "vm1")
    assert settled(functions, before) == before


@pytest.mark.case(
    "virtual functions of an igb",
    tool="qemu",
    lacks={"debian12": "the QEMU that emulates this machine, 7.2, has no igb"},
)
def test_a_virtual_function_of_a_network_card(functions: Guest) -> None:
    """Its driver, igbvf, has it before it is lent, and has it again."""
    write(functions, IGB, "sriov_numvfs", "2")
    try:
        functions.check("udevadm settle")
        before = world(functions)
        assert kernel_drivers(functions, IGB, VF, VF2) == ["igb", "igbvf", "igbvf"]
        with pytest.raises(NotAssignableError, match=f"{VF}, {VF2}"):
            call(functions, inside.prepare, "vm2", [IGB])
        (assignment,) = call(functions, inside.prepare, "vm1", [VF])
        with pytest.raises(DeviceInUseError, match=f"{IGB}.*{VF}.*vm1"):
            call(functions, inside.prepare, "vm2", [IGB])
        with NestedQemu(functions, assignment.arguments) as qemu:
            assert (0x8086, 0x10CA) in seen_by(qemu)
            with pytest.raises(ReattachError) as kept:
                call(functions, inside.reattach, "vm1")
            (error,) = kept.value.exceptions
            assert f"pid {qemu.pid}" in str(error)
        assert kernel_drivers(functions, IGB, VF, VF2) == ["igb", "vfio-pci", "igbvf"]
        call(functions, inside.reattach, "vm1")
        assert settled(functions, before) == before
    finally:
        write(functions, IGB, "sriov_numvfs", "0")
