"""What udev says on a real kernel of what another process does, and waiting for it."""

from __future__ import annotations

from . import inside_processes, machines
from .guest import Guest
from .world import call, kernel_drivers, world

NIC = machines.NIC


def test_a_node_and_a_network_interface_are_waited_for(bare: Guest) -> None:
    bare.check("modprobe vfio-pci; udevadm settle")
    found = world(bare)
    group = bare.check(f"basename $(readlink /sys/bus/pci/devices/{NIC}/iommu_group)").strip()
    node = f"/dev/vfio/{group}"
    heard = call(bare, inside_processes.hear_of, NIC, "vfio-pci", node)
    assert (heard.before, heard.waited) == (False, True)
    assert heard.events.index(("unbind", NIC)) < heard.events.index(("bind", NIC))
    assert kernel_drivers(bare, NIC) == ["vfio-pci"]
    settled, names = call(bare, inside_processes.settled_after, NIC, "e1000e", "net")
    assert (settled, len(names)) == (True, 1)
    assert bare.check(f"test ! -e {node} && ls /sys/bus/pci/devices/{NIC}/net") == f"{names[0]}\n"
    assert world(bare) == found


def test_what_does_not_come_is_not_waited_for_for_ever(bare: Guest) -> None:
    assert call(bare, inside_processes.wait_for, "/dev/vfio/nobody", 0.3) is False
    assert call(bare, inside_processes.wait_for, "/dev/null", 0.3) is True
