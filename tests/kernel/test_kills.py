"""SIGKILL before and after every write and in every transaction, on a real kernel.

The moments are enumerated, see inside_kills; after each the world is the one before the call or the
one after it.
"""

from __future__ import annotations

import pytest

from hostdev_core import PrepareFlags

from . import machines
from .guest import Guest
from .inside_kills import check_nothing_lost, kill_everywhere
from .world import call

NIC, FOUR, GROUP = machines.NIC, machines.MANY_NICS[:4], machines.CHIPSET
VERBS = pytest.mark.parametrize("verb", ["prepare", "reattach"])
WRITES = {"prepare": 3, "reattach": 4}
"""To the kernel, for a device on its driver: to the stub by override, unbind, bind; back the same way,
and the override again."""


@pytest.fixture(scope="module", autouse=True)
def _vfio(spare: Guest) -> None:
    spare.check("modprobe vfio-pci")


@VERBS
def test_one_device_and_its_recoverers(spare: Guest, verb: str) -> None:
    report = call(spare, kill_everywhere, verb, [NIC], again=True)
    check_nothing_lost(report, WRITES[verb])
    assert len([moment for moment in report.moments if "in transaction" in moment]) >= 2
    assert report.recoverers > len(report.moments)


@VERBS
@pytest.mark.parametrize(("side", "only"), [("worker", ""), ("front", "write")])
def test_one_device_by_a_worker(spare: Guest, verb: str, side: str, only: str) -> None:
    report = call(spare, kill_everywhere, verb, [NIC], side=side, only=only)
    check_nothing_lost(report, WRITES[verb])


@VERBS
def test_four_devices_at_once(spare: Guest, verb: str) -> None:
    report = call(spare, kill_everywhere, verb, FOUR, only="write")
    check_nothing_lost(report, 4 * WRITES[verb])
    for address in FOUR:
        assert f"before write bus/pci/devices/{address}/driver_override" in report.moments


@VERBS
def test_a_whole_group(spare: Guest, verb: str) -> None:
    """Its members are bound and unbound together: after each of these, others are under way."""
    report = call(
        spare,
        kill_everywhere,
        verb,
        [GROUP[1]],
        flags=PrepareFlags.WHOLE_GROUP,
        only="after write bus/pci/drivers",
    )
    assert report.losses == []
    assert len(report.moments) == 2 * len(GROUP)
