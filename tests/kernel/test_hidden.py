"""A process in a mount namespace that hides a part of the machine: what is not seen is not gone."""

from __future__ import annotations

import pytest

from . import facts, inside, inside_namespaces, machines
from .guest import Guest
from .inside_facts import Answers
from .test_users import having_open
from .world import call, hostdev, kernel_drivers, world

NIC = machines.NIC
HIDDEN = {
    "/sys": "/sys/bus/pci/devices: No such file or directory",
    "/sys/bus/pci/devices": "/sys/bus/pci/devices: something else is mounted there",
    "/sys/devices": "/sys/bus/pci/devices/0000:01:00.0: something else is mounted over it",
    "/sys/devices/pci0000:00": "/sys/bus/pci/devices/0000:01:00.0: something else is mounted over it",
    "/dev": "/dev/vfio/19 cannot be seen",
    "/dev/vfio": "/dev/vfio/19 cannot be seen",
    "/proc": "/proc does not tell which pid namespace this is",
}
"""What lies under an empty file system, and what is said of that."""


def test_what_hides_a_device_keeps_it_lent(bare: Guest) -> None:
    found = world(bare)
    group = bare.check(f"basename $(readlink /sys/bus/pci/devices/{NIC}/iommu_group)").strip()
    call(bare, inside.prepare, "vm1", [NIC])
    lent, records = world(bare), call(bare, inside.records)
    for hidden, reason in HIDDEN.items():
        done = call(bare, inside_namespaces.command_without, hidden, "reattach", "vm1")
        assert done.returncode in {1, 3}, (hidden, done)
        assert reason.replace("19", group) in done.stderr, (hidden, done)
    assert kernel_drivers(bare, NIC) == ["vfio-pci"]
    assert (world(bare), call(bare, inside.records)) == (lent, records)
    assert call(bare, inside.lists).active == {NIC: "vm1"}
    done = hostdev(bare, "reattach", "vm1")
    assert (done.returncode, world(bare)) == (0, found), done.stderr


def test_a_file_over_the_node_of_a_held_group_tells_nothing(bare: Guest) -> None:
    found = world(bare)
    call(bare, inside.prepare, "vm1", [NIC])
    group = bare.check(f"basename $(readlink /sys/bus/pci/devices/{NIC}/iommu_group)").strip()
    node = f"/dev/vfio/{group}"
    with having_open(bare, node):
        done = call(bare, inside_namespaces.command_with_file_over, node, "reattach", "vm1")
        assert done.returncode in {1, 3}
        assert f"{node} is no node of it" in done.stderr
        assert kernel_drivers(bare, NIC) == ["vfio-pci"]
        assert call(bare, inside.lists).active == {NIC: "vm1"}
        assert "is held by" in hostdev(bare, "reattach", "vm1").stderr
    done = hostdev(bare, "reattach", "vm1")
    assert (done.returncode, world(bare)) == (0, found), done.stderr


@pytest.fixture(scope="module")
def answers(bare: Guest) -> Answers:
    return call(bare, inside_namespaces.facts_without_a_sysfs, NIC)


@pytest.mark.parametrize("name", [fact.name for fact in facts.HIDDEN_FACTS])
def test_fact(name: str, answers: Answers) -> None:
    seen, expected = answers[name]
    assert seen == expected
