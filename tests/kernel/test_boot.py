"""Which boot a ledger is of, by what a real kernel says of its own."""

from __future__ import annotations

import json

import pytest

from hostdev_core import DeviceInUseError

from . import inside, inside_boot, inside_namespaces, machines
from .guest import Guest
from .inside_boot import BOOT_ID
from .test_others import rebind
from .world import call, hostdev, kernel_drivers, world

NIC = machines.NIC
ANOTHER = "5ca1ab1e-0000-4000-8000-000000000000"
NUMBER = 0x5CA1AB1
"""Its first seven digits, which a ledger keeps."""


def test_a_ledger_has_the_kernels_boot_id(bare: Guest) -> None:
    known = bare.check(f"cat {BOOT_ID}").strip()
    call(bare, inside.prepare, "vm1", [NIC])
    assert call(bare, inside_boot.boot) == (known, int(known[:7], 16))
    assert call(bare, inside.reattach, "vm1") == (NIC,)


def test_the_kernel_refuses_to_be_read_in_one_large_piece(bare: Guest) -> None:
    known = bare.check(f"cat {BOOT_ID}")
    sizes = (4096, 1 << 16, 16 << 20)
    seen = [call(bare, inside_boot.read_at_once, BOOT_ID, size) for size in sizes]
    assert seen == [known, known, "ENOMEM"]


def test_a_boot_id_of_a_container_voids_nothing(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NIC])
    lent = world(bare)
    status = call(bare, inside_namespaces.command_with_boot_id, ANOTHER, "status", "--json")
    (record,) = json.loads(status.stdout)["records"]
    assert (record["address"], record["used_by"]["domain"]) == (NIC, "vm1")
    refused = call(bare, inside_namespaces.command_with_boot_id, ANOTHER, "prepare", "vm2", NIC)
    assert refused.returncode == 1
    assert "vm1" in refused.stderr
    assert world(bare) == lent
    returned = call(bare, inside_namespaces.command_with_boot_id, ANOTHER, "reattach", "vm1")
    assert (returned.returncode, kernel_drivers(bare, NIC)) == (0, ["e1000e"]), returned.stderr


def test_a_record_of_an_earlier_boot_is_void_and_one_of_a_bound_device_never(bare: Guest) -> None:
    call(bare, inside.prepare, "vm1", [NIC])
    call(bare, inside_boot.ledger_number, NUMBER)
    assert call(bare, inside.lists).active == {NIC: "vm1"}  # it is where the record put it
    with pytest.raises(DeviceInUseError, match="vm1"):
        call(bare, inside.prepare, "vm2", [NIC])
    rebind(bare, NIC, "e1000e")  # as after a reboot
    call(bare, inside_boot.ledger_number, NUMBER)
    status = hostdev(bare, "status")
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout == "nothing is lent, detached or stuck\n"
    call(bare, inside.prepare, "vm2", [NIC])
    assert call(bare, inside.lists).active == {NIC: "vm2"}
    now = call(bare, inside_boot.boot)
    assert now.ledger == int((now.id or "")[:7], 16)
    assert call(bare, inside.reattach, "vm2") == (NIC,)
    assert kernel_drivers(bare, NIC) == ["e1000e"]


def test_what_the_kernel_says_is_heard_whatever_its_clock(bare: Guest) -> None:
    bare.check("echo hostdev-lab: before > /dev/kmsg")
    heard = call(bare, inside_boot.said, "hostdev-lab: one", "hostdev-lab: two")
    assert heard == ["hostdev-lab: one", "hostdev-lab: two"]


def test_what_the_kernel_says_is_heard_behind_what_was_overwritten(bare: Guest) -> None:
    assert call(bare, inside_boot.said_more_than_fits) == (True, ["hostdev-lab: last"])
