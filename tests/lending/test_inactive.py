"""A device on the inactive list that a process opens, or somebody rebinds: neither given back nor lent."""

import pytest

from hostdev_core import (
    Domain,
    PrepareFlags,
    StateError,
    VetoError,
    hookimpl,
)
from hostdev_core.model.record import Phase
from hostdev_core.simulated import SimulatedHost
from tests.helpers.crossing import add_group, rebind
from tests.sample import GPU, NIC, SOUND, connect


def test_what_a_process_opens_on_the_inactive_list_stays_there(host: SimulatedHost) -> None:
    class Refuses:
        @hookimpl
        def hostdev_before_prepare(self) -> None:
            hold.__enter__()
            raise VetoError("no")

    with connect(host, Refuses()) as conn, connect(host) as other:
        other.detach_device(NIC)
        hold = host.hold(NIC)
        with pytest.raises(VetoError):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        hold.__exit__(None, None, None)
        (record,) = host.ledger.records()
        assert (record.phase, record.stuck) == (Phase.INACTIVE, None)
        other.reattach_device(NIC)


@pytest.mark.parametrize("now", [None, "snd_hda_intel"])
def test_what_was_rebound_behind_our_back_is_not_lent_again(
    host: SimulatedHost, now: str | None
) -> None:
    """The domain has it already, by the ledger alone: its hypervisor would be told a lie."""
    add_group(host)
    before = host.snapshot()
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)
        rebind(host, SOUND, now)
        moved, records = host.snapshot(), host.ledger.records()
        with pytest.raises(StateError, match=f"{SOUND} was rebound .* on {now or 'no driver'}"):
            conn.prepare_hostdevs(Domain("vm1", [SOUND]))
        rebind(host, GPU, None)
        with pytest.raises(StateError, match=f"{GPU} was rebound .* `hostdev reattach vm1`"):
            conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.ALLOW_SAME_OWNER)
        assert host.snapshot() != moved
        assert host.ledger.records() == records
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_what_was_detached_and_rebound_is_not_detached_by_now(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect(host) as conn:
        conn.detach_device(NIC)
        rebind(host, NIC, "e1000e")
        with pytest.raises(StateError, match=f"`hostdev device reattach {NIC}`"):
            conn.detach_device(NIC)
        conn.reattach_device(NIC)
    assert host.snapshot() == before
