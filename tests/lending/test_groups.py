"""The members of one IOMMU group: lent, waiting, and given back one by one."""

import errno
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from hostdev_core import (
    Domain,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    StateError,
    VetoError,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.crossing import Once, add_group, lent, pci
from tests.helpers.users import having_open
from tests.sample import GPU, NIC, SOUND, connect


def test_a_sibling_that_went_to_another_domain_meanwhile_stays_there(host: SimulatedHost) -> None:
    add_group(host)
    once = Once()
    with connect(host) as other, connect(host, once) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)

        def take_away() -> None:
            with pytest.raises(ReattachError, match=NIC):  # that one is being prepared just now
                other.reattach_hostdevs("vm1")
            other.prepare_hostdevs(Domain("vm2", [SOUND]), PrepareFlags.WHOLE_GROUP)

        once.work = take_away
        with pytest.raises(StateError):
            conn.prepare_hostdevs(Domain("vm1", [SOUND, NIC]))
        assert lent(host) == {SOUND: "vm2"}


def test_a_member_that_waits_goes_home_when_the_other_one_never_came(host: SimulatedHost) -> None:
    host.add_pci(GPU, kernel_driver="nouveau", iommu_group=3)
    host.add_pci(SOUND, iommu_group=3)
    before = host.snapshot()
    once = Once()
    with connect(host) as other, connect(host, once) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]))

        def leave_and_refuse() -> None:
            other.reattach_pci_hostdevs("vm1", [pci(GPU)])
            raise VetoError("no")

        once.work = leave_and_refuse
        with pytest.raises(VetoError):
            conn.prepare_hostdevs(Domain("vm1", [SOUND]))
    assert host.ledger.records() == []
    assert host.snapshot() == before


def test_a_member_that_waits_stays_on_its_stub_while_a_process_has_it(tmp_path: Path) -> None:
    """The way home of the other one does not stop at that, and the next recovery gives this one back."""
    host = SimulatedHost.create(tmp_path / "machine", kernel_release="6.6.0-simulated")
    host.add_pci(GPU, kernel_driver="nouveau", iommu_group=3)
    host.add_pci(SOUND, iommu_group=3)
    before = host.snapshot()
    once = Once()
    with connect(host) as other, connect(host, once) as conn, ExitStack() as users:
        conn.prepare_hostdevs(Domain("vm1", [GPU]))
        waits = host.snapshot()

        def leave_and_refuse() -> None:
            other.reattach_pci_hostdevs("vm1", [pci(GPU)])
            (name,) = host.sysfs.names(f"bus/pci/devices/{GPU}/vfio-dev")
            users.enter_context(having_open(host.path(f"dev/vfio/devices/{name}")))
            raise VetoError("no")

        once.work = leave_and_refuse
        with pytest.raises(VetoError) as raised:
            conn.prepare_hostdevs(Domain("vm1", [SOUND]))
        (note,) = raised.value.__notes__
        assert f"{GPU} is held by " in note
        assert SOUND not in note
        with pytest.raises(ReattachError, match=GPU):
            other.recover()
        (record,) = host.ledger.records()
        assert (record.address, record.op, record.stuck) == (GPU, None, None)
        assert host.snapshot() == waits
        users.close()
        assert other.recover() == (GPU,)
    assert host.ledger.records() == []
    assert host.snapshot() == before


def test_who_forgets_a_device_hears_of_siblings_that_do_not_go_home(host: SimulatedHost) -> None:
    add_group(host)
    before = host.snapshot()
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [pci(GPU)]), PrepareFlags.WHOLE_GROUP)
        host.on_write("*/vfio-pci/unbind", value=SOUND, errno=errno.EIO)
        with pytest.raises(ReattachError, match=f"{GPU} is forgotten; not given back: {SOUND}"):
            conn.forget_device(GPU)
        (record,) = host.ledger.records()
        assert record.address == SOUND
        assert "EIO" in (record.stuck or "")
        assert conn.recover() == (SOUND,)
    assert host.snapshot()[SOUND] == before[SOUND]
    assert host.ledger.records() == []


def test_a_fragile_driver_and_another_one_in_one_group(host: SimulatedHost) -> None:
    host.add_pci(GPU, kernel_driver="ioatdma", iommu_group=3)
    host.add_pci(SOUND, kernel_driver="nvme", iommu_group=3)
    before = host.snapshot()
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU, SOUND]))
        assert sorted(conn.reattach_hostdevs("vm1")) == [GPU, SOUND]
    assert host.snapshot() == before


@pytest.mark.parametrize("uri", ["qemu:///system", "xen:///system"])
def test_fragile_drivers_are_never_at_work_on_two_devices(tmp_path: Path, uri: str) -> None:
    """Each in a group of its own, or without one under Xen: others would go side by side."""
    xen = uri.startswith("xen")
    host = SimulatedHost.create(tmp_path / "machine", dom0=xen)
    addresses = [f"0000:0{number}:00.0" for number in range(5, 8)]
    for group, address in enumerate(addresses, 20):
        host.add_pci(address, kernel_driver="ioatdma", iommu_group=None if xen else group)
    before = host.snapshot()
    at_work: list[str] = []
    overlaps: list[list[str]] = []

    def watch(moment: str) -> None:
        when, _, path = moment.partition(" write ")
        if path.startswith("bus/pci/drivers/ioatdma/"):
            if when == "before":
                at_work.append(moment)
                time.sleep(0.05)  # for others to begin, too
                overlaps.append([*at_work])
            else:
                at_work.remove(f"before write {path}")

    with connect(host, uri=uri) as conn:
        conn.host.watch(watch)
        conn.prepare_hostdevs(Domain("vm1", addresses))
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before
    assert len(overlaps) == 2 * len(addresses)
    assert all(len(each) == 1 for each in overlaps), overlaps


def test_nobody_gets_the_group_while_its_device_goes_home(host: SimulatedHost) -> None:
    before = host.snapshot()
    tried: list[int | None] = []

    def watch(moment: str) -> None:
        if moment == "before write bus/pci/drivers/vfio-pci/unbind":
            try:
                with SimulatedHost.open(host.root).hold(NIC):
                    tried.append(None)
            except OSError as error:
                tried.append(error.errno)

    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.host.watch(watch)
        conn.reattach_hostdevs("vm1")
    assert tried == [errno.EBUSY]
    assert host.snapshot() == before


def test_the_members_of_a_group_can_be_detached_one_by_one(host: SimulatedHost) -> None:
    add_group(host)
    before = host.snapshot()
    with connect(host) as conn:
        conn.detach_device(GPU)
        conn.detach_device(SOUND)
        assert {device.name for device in conn.get_inactive_pci_hostdev_list()} == {GPU, SOUND}
        conn.reattach_device(GPU)
        conn.reattach_device(SOUND)
    assert host.snapshot() == before


def test_a_sibling_that_is_asked_for_by_name_is_recorded_as_asked(host: SimulatedHost) -> None:
    """Who asked, by UUID, so that a second machine of the name gives it back to nobody; and what passed."""
    add_group(host)
    before = host.snapshot()
    with connect(host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]), PrepareFlags.WHOLE_GROUP)
        asked = PCIHostdev(address=SOUND, allow={"sound"})  # type: ignore[arg-type]
        conn.prepare_hostdevs(Domain("vm1", [asked], uuid="aaa"))
        (record,) = (r for r in host.ledger.records() if r.address == SOUND)
        assert (record.allowed, record.owner and record.owner.uuid) == ("sound", "aaa")
        conn.reattach_hostdevs(Domain("vm1", uuid="bbb"))
        assert lent(host) == {SOUND: "vm1"}
        conn.reattach_hostdevs(Domain("vm1", uuid="aaa"))
    assert host.snapshot() == before
    assert host.ledger.records() == []
