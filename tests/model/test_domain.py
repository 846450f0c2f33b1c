"""The options of a domain and of a hostdev are checked where it is made, before a device is looked at."""

from typing import Any

import pytest

from hostdev_core import Connection, Domain, InputError, PCIHostdev
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC

pytestmark = pytest.mark.quick_cases


@pytest.mark.parametrize("stub", ["", ".", "..", "../vfio-pci", "a/b", "a\nb", 7])
def test_what_is_no_stub(conn: Connection, host: SimulatedHost, stub: Any) -> None:
    """A stub's name becomes a part of paths in sysfs."""
    before = host.snapshot()
    with pytest.raises(InputError, match="is no stub driver"):
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=NIC, stub=stub)]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize("managed", [None, 0, 1, "no"])
def test_managed_is_true_or_false(conn: Connection, host: SimulatedHost, managed: Any) -> None:
    """The text "no" is true for Python: the device would be taken from its driver."""
    before = host.snapshot()
    with pytest.raises(InputError, match="neither True nor False"):
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=NIC, managed=managed)]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize("uuid", ["", "a\nb", "x" * 256, 7])
def test_what_is_no_uuid(conn: Connection, host: SimulatedHost, uuid: Any) -> None:
    with pytest.raises(InputError, match="is no UUID"):
        conn.prepare_hostdevs(Domain("vm1", [NIC], uuid=uuid))
    assert host.ledger.records() == []
