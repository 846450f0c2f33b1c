"""What is explained of a real machine's devices is what a prepare does with them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from hostdev_core import HostdevError, PrepareFlags

from . import inside, machines
from .guest import Guest
from .world import call, settled, world

FLAGS = (PrepareFlags.NONE, PrepareFlags.WHOLE_GROUP)


def check_agreement(guest: Guest, spare: Collection[str], flags: PrepareFlags) -> None:
    """Explain all devices, and lend those that cannot be lent, and the spare ones that can.

    The others that can are not spared: the guest's own file system is on one of them.
    """
    before = world(guest)
    names = call(guest, inside.every_device)
    found = call(guest, inside.explain, names, flags)
    assert [each.device for each in found] == names
    assert world(guest) == before
    for each in found:
        if not each.is_lendable:
            with pytest.raises(HostdevError) as refused:
                call(guest, inside.prepare, "vm1", [each.device], flags)
            assert getattr(refused.value, "rule", None) in {
                None,  # of a VetoError, which has several
                *(reason.rule for reason in each.reasons),
            }
        elif each.device in spare:
            call(guest, inside.prepare, "vm1", [each.device], flags)
            call(guest, inside.reattach, "vm1")
    assert settled(guest, before) == before
    assert {each.device for each in found if each.is_lendable} >= {*spare}


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags.name)
def test_on_a_machine_with_vfio(bare: Guest, flags: PrepareFlags) -> None:
    spare = {machines.NIC, machines.NVME}
    check_agreement(bare, spare, flags)


def test_in_dom0(dom0: Guest) -> None:
    check_agreement(dom0, {machines.XEN_NIC, machines.XEN_NVME}, PrepareFlags.NONE)


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags.name)
def test_on_cards_of_several_functions(functions: Guest, flags: PrepareFlags) -> None:
    spare = machines.TWINS if flags else ()
    check_agreement(functions, spare, flags)


@pytest.mark.parametrize(
    ("iommu", "rule"),
    [("", "no-iommu"), ("intel-iommu,intremap=off,caching-mode=on", "vfio-refuses")],
    ids=["no IOMMU", "no remapping"],
)
def test_where_nothing_can_be_lent(tmp_path: Path, iommu: str, rule: str) -> None:
    with Guest(tmp_path, machines.small(), iommu=iommu) as guest:
        guest.check("modprobe -a usbcore")
        explained = guest.hostdev("explain", machines.NIC, "--json")
        (found,) = json.loads(explained.stdout)["devices"]
        assert [reason["rule"] for reason in found["reasons"]] == [rule]
        refused = guest.hostdev("prepare", "vm1", machines.NIC, "--json")
        assert (explained.returncode, refused.returncode) == (1, 1)
        assert json.loads(refused.stdout)["error"]["rule"] == rule
        assert guest.hostdev("status").stdout.startswith("nothing is lent")
