"""The owner of a device is told by its domain's UUID where there is one."""

import pytest

from hostdev_core import (
    DeviceInUseError,
    Domain,
    PrepareFlags,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC, connect


def test_who_has_it_is_told_by_uuid_where_there_is_one(host: SimulatedHost) -> None:
    """Two machines of one name: the name alone would say that it has the device itself."""
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC], uuid="aaa"))
        for flags in PrepareFlags.NONE, PrepareFlags.ALLOW_SAME_OWNER:
            with pytest.raises(DeviceInUseError, match=r"'vm1' of qemu .*, UUID aaa"):
                conn.prepare_hostdevs(Domain("vm1", [NIC], uuid="bbb"), flags)
        conn.reattach_hostdevs("vm1")


SAME = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


@pytest.mark.parametrize(
    "again",
    [SAME.upper(), f"{{{SAME}}}", SAME.replace("-", ""), f"urn:uuid:{SAME}"],
)
def test_a_uuid_is_the_same_in_each_of_its_forms(host: SimulatedHost, again: str) -> None:
    with connect(host) as conn:
        for mine, other in (SAME, again), (again, SAME):
            conn.prepare_hostdevs(Domain("vm1", [NIC], uuid=mine))
            (record,) = host.ledger.records()
            assert record.owner is not None
            assert record.owner.uuid == mine  # as it was given
            flags = PrepareFlags.ALLOW_SAME_OWNER
            conn.prepare_hostdevs(Domain("vm1", [NIC], uuid=other), flags)
            assert conn.get_domain_active_pci_hostdev_list(Domain("vm1", uuid=other))
            assert conn.reattach_hostdevs(Domain("vm1", uuid=other)) == (NIC,)


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ("vm-A", "vm-a"),
        ("c7a5fdbd", "C7A5FDBD"),
        (SAME, SAME[:-1] + "8"),
        (SAME, f"{{{SAME}"),
        (SAME, f"{SAME}}}"),
        (SAME, SAME[:-2] + "-09"),
    ],
)
def test_what_is_no_uuid_is_compared_as_a_text(host: SimulatedHost, mine: str, other: str) -> None:
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC], uuid=mine))
        assert conn.reattach_hostdevs(Domain("vm1", uuid=other)) == ()
        assert conn.reattach_hostdevs(Domain("vm1", uuid=mine)) == (NIC,)
