"""A reset: of which device, when, and what keeps it from being made."""

import os
import signal
from itertools import cycle
from pathlib import Path

import pytest

from hostdev_core import (
    DeviceInUseError,
    Domain,
    KernelError,
    NotAssignableError,
    PrepareFlags,
    StateError,
)
from hostdev_core.model.record import Phase
from hostdev_core.simulated import SimulatedHost
from tests.sample import GPU, NIC, connect


def test_a_reset_spares_what_a_process_has(host: SimulatedHost) -> None:
    host.add_pci(GPU, kernel_driver="vfio-pci", iommu_group=3)
    with connect(host) as conn, host.hold(GPU):
        host.clear_writes()
        with pytest.raises(DeviceInUseError, match="held by"):
            conn.reset_device(GPU)
    assert host.writes() == []
    assert host.ledger.records() == []


def test_nobody_gets_a_device_during_its_reset(host: SimulatedHost) -> None:
    with connect(host) as conn, connect(host) as other:
        conn.detach_device(NIC)
        host.on_write(f"*/{NIC}/reset", errno=5)
        with pytest.raises(Exception, match="reset"):
            conn.reset_device(NIC)
        (record,) = host.ledger.records()
        assert (record.phase, record.op) == (Phase.INACTIVE, None)
        conn.reset_device(NIC)
        other.prepare_hostdevs(Domain("vm1", [NIC]))
        with pytest.raises(DeviceInUseError, match="vm1"):
            conn.reset_device(NIC)
        other.reattach_hostdevs("vm1")
        conn.reattach_device(NIC)


def test_a_device_without_a_reset_is_lent_where_none_is_required(host: SimulatedHost) -> None:
    """It is refused where a reset is required, before anything is written."""
    card = "0000:05:00.0"
    host.add_pci(card, kernel_driver="e1000e", iommu_group=9, resets=False)
    before, wanted = host.snapshot(), Domain("vm1", [card])
    with connect(host) as conn:
        host.clear_writes()
        with pytest.raises(NotAssignableError, match="no reset method") as raised:
            conn.prepare_hostdevs(wanted, PrepareFlags.REQUIRE_RESET)
        assert (raised.value.device, raised.value.rule) == (card, "no-reset")
        assert (host.writes(), host.ledger.records()) == ([], [])
        assert "no reset method" in " ".join(conn.plan(wanted).warnings)
        conn.prepare_hostdevs(wanted)
        assert conn.reattach_hostdevs("vm1") == (card,)
    assert host.snapshot() == before


def test_a_reset_that_fails_is_warned_of_or_undoes_the_prepare(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where none is required, the device is lent all the same. VFIO would reset by itself, Xen does not."""
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_pci(NIC, kernel_driver="e1000e")
    before, wanted = host.snapshot(), Domain("vm1", [NIC])
    with connect(host, uri="xen:///system") as conn:
        host.on_write(f"*/{NIC}/reset", errno=5)
        with pytest.raises(KernelError, match="reset"):
            conn.prepare_hostdevs(wanted, PrepareFlags.REQUIRE_RESET)
        assert (host.snapshot(), host.ledger.records()) == (before, [])
        host.on_write(f"*/{NIC}/reset", errno=5)
        conn.prepare_hostdevs(wanted)
        assert [text for text in caplog.messages if text.endswith("; going on without")]
        conn.reattach_hostdevs("vm1")
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_a_detached_device_is_reset_between_two_guests(tmp_path: Path) -> None:
    """It stays on its stub, so that nobody else resets it; that it must be, is kept to."""
    host = SimulatedHost.create(tmp_path / "host", dom0=True)
    host.add_pci(NIC, kernel_driver="e1000e")
    before, resets = host.snapshot(), (f"bus/pci/devices/{NIC}/reset", "1")
    with connect(host, uri="xen:///system") as conn:
        conn.detach_device(NIC)
        for domain in ("vm1", "vm2"):
            host.clear_writes()
            conn.prepare_hostdevs(Domain(domain, [NIC]))
            assert host.writes() == [resets]
            conn.reattach_hostdevs(domain)
        rests, records = host.snapshot(), host.ledger.records()
        host.on_write(resets[0], errno=5)
        with pytest.raises(KernelError):
            conn.prepare_hostdevs(Domain("vm3", [NIC]), PrepareFlags.REQUIRE_RESET)
        assert host.snapshot() == rests
        assert [record._replace(since=0) for record in host.ledger.records()] == [
            record._replace(since=0) for record in records
        ]
        conn.reattach_device(NIC)
    assert host.snapshot() == before


def test_a_reset_recovers_what_is_in_its_way(host: SimulatedHost) -> None:
    with connect(host) as conn:
        conn.detach_device(NIC)
        rests = host.snapshot()

        def die(what: str) -> None:
            if what.startswith("before write"):
                os.kill(os.getpid(), signal.SIGKILL)

        if (pid := os.fork()) == 0:
            try:
                host.watch(die)
                conn.reset_device(NIC)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        assert [record.phase for record in host.ledger.records()] == ["preparing"]
        host.clear_writes()
        conn.reset_device(NIC)
        assert host.writes() == [(f"bus/pci/devices/{NIC}/reset", "1")]
        assert [record.phase for record in host.ledger.records()] == ["inactive"]
        assert host.snapshot() == rests


def test_a_reset_spares_the_card_that_took_the_place_of_a_detached_one(host: SimulatedHost) -> None:
    with connect(host) as conn:
        conn.detach_device(NIC)
        host.unplug(NIC)
        host.add_pci(NIC, kernel_driver="vfio-pci", driver_override="vfio-pci", iommu_group=1)
        now, records = host.snapshot(), host.ledger.records()
        host.clear_writes()
        with pytest.raises(StateError, match=f"{NIC} is not the device that was detached"):
            conn.reset_device(NIC)
        assert host.writes() == []
        assert host.ledger.records() == records
        conn.reattach_device(NIC)
    assert host.snapshot() == now
    assert host.ledger.records() == []


def test_a_card_that_is_replaced_before_its_reset_leaves_no_slot(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_pci(NIC, kernel_driver="e1000e")
    with connect(host, uri="xen:///system") as conn:
        conn.detach_device(NIC)

        def pull_out(what: str) -> None:
            if what.endswith("/reset") and NIC in host.snapshot():
                host.unplug(NIC)

        host.watch(pull_out)
        with pytest.raises(KernelError):
            conn.reset_device(NIC)
    assert host.snapshot()["pciback"] == {"slots": []}
    assert host.ledger.records() == []


def test_a_device_that_goes_home_before_its_reset_is_not_reset(host: SimulatedHost) -> None:
    before, other = host.snapshot(), SimulatedHost.open(host.root)
    with connect(other) as others, connect(host) as conn:
        conn.detach_device(NIC)

        def take_home(what: str) -> None:
            host.watch(None)
            others.reattach_device(NIC)

        host.watch(take_home)
        with pytest.raises(NotAssignableError, match=f"{NIC} is on host driver e1000e"):
            conn.reset_device(NIC)
    assert (f"bus/pci/devices/{NIC}/reset", "1") not in host.writes()
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_device_that_comes_and_goes_is_not_reset(host: SimulatedHost) -> None:
    """Somebody detaches it, or gives it back, between each look and its claim."""
    host.add_pci(GPU, iommu_group=3)
    before = host.snapshot()
    with connect(host) as conn, connect(SimulatedHost.open(host.root)) as other:
        moves = cycle((other.detach_device, other.reattach_device))

        def move(moment: str) -> None:
            if moment == "before transaction":
                next(moves)(GPU)

        conn.host.watch(move)
        host.clear_writes()
        with pytest.raises(StateError, match=f"reset {GPU}: the device changed under 3 attempts"):
            conn.reset_device(GPU)
        conn.host.watch(None)
        assert not [path for path, _ in host.writes() if path.endswith(f"{GPU}/reset")]
        other.reattach_device(GPU)
    assert host.snapshot() == before
    assert host.ledger.records() == []
