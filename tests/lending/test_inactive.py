"""A device on the inactive list that a process opens, or somebody rebinds: neither given back nor lent."""

import pytest

from hostdev_core import (
    DeviceInUseError,
    Domain,
    PCIHostdev,
    PrepareFlags,
    StateError,
    VetoError,
    hookimpl,
)
from hostdev_core.model.record import Phase
from hostdev_core.simulated import SimulatedHost
from tests.helpers.crossing import add_group, pci, rebind
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


def test_of_two_that_were_detached_the_first_goes_back_on_the_list_at_once(
    host: SimulatedHost,
) -> None:
    """Its stub is where it belongs, so it waits for nothing; it stays there while the other is lent."""
    add_group(host)
    before = host.snapshot()
    with connect(host) as conn:
        conn.detach_device(GPU)
        conn.detach_device(SOUND)
        detached = host.snapshot()
        mine = [PCIHostdev(address=name, managed=False) for name in (GPU, SOUND)]  # type: ignore[arg-type]
        conn.prepare_hostdevs(Domain("vm1", mine))
        returned = conn.reattach_pci_hostdevs("vm1", [pci(GPU)])
        assert ((*returned,), returned.waiting) == ((GPU,), ())
        assert [device.name for device in conn.get_inactive_pci_hostdev_list()] == [GPU]
        with pytest.raises(DeviceInUseError, match=f"shares IOMMU group 3 with {SOUND}") as raised:
            conn.reattach_device(GPU)
        assert raised.value.used_by is not None
        assert (raised.value.device, raised.value.used_by.domain) == (GPU, "vm1")
        assert conn.reattach_hostdevs("vm1") == (SOUND,)
        assert host.snapshot() == detached
        conn.reattach_device(GPU)
        conn.reattach_device(SOUND)
    assert host.snapshot() == before
    assert host.ledger.records() == []
