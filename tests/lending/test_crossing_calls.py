"""What must hold where calls cross, guests are elsewhere, and plugins are wrong."""

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Literal

import attrs
import pytest

from hostdev_core import (
    DeviceInUseError,
    Domain,
    Host,
    KernelError,
    LocalHostdevDriver,
    NotAssignableError,
    PCIDevice,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    StateError,
    USBHostdev,
    VetoError,
    hookimpl,
)
from hostdev_core.model.record import Phase
from hostdev_core.simulated import SimulatedHost
from tests.sample import DISK, GPU, NIC, SOUND, connect


@attrs.define(eq=False)
class Once:
    """Does something in the next before_prepare."""

    work: Callable[[], object] | None = None

    @hookimpl
    def hostdev_before_prepare(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            work()


def add_group(host: SimulatedHost) -> None:
    host.add_pci(GPU, kernel_driver="nouveau", iommu_group=3)
    host.add_pci(SOUND, kernel_driver="snd_hda_intel", iommu_group=3)


def lent(host: SimulatedHost) -> dict[str, str]:
    records = (record for record in host.ledger.records() if record.is_lent)
    return {record.address: record.owner.domain for record in records if record.owner}


def pci(address: str) -> PCIHostdev:
    return PCIHostdev(address=address)  # type: ignore[arg-type]


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


def test_a_xen_device_that_was_pulled_out_leaves_no_slot(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    host.add_pci(GPU, kernel_driver="nouveau")
    before = host.snapshot()
    with connect(host, uri="xen:///system") as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU]))
        host.unplug(GPU)
        conn.reattach_hostdevs("vm1")
    host.add_pci(GPU, kernel_driver="nouveau")
    assert host.snapshot() == before
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


class CluelessDriver(LocalHostdevDriver):
    """Cannot tell who has a device on the second network card's address."""

    name = "clueless"
    uri_schemes = ("clueless",)
    stubs = ("vfio-pci",)
    broken = False

    def holders(self, host: Host, device: PCIDevice) -> Sequence[str]:
        if CluelessDriver.broken and device.name == DISK:
            raise ValueError("out of order")
        return ()


class CluelessPlugin:
    @hookimpl
    def hostdev_drivers(self) -> list[LocalHostdevDriver]:
        return [CluelessDriver()]


def test_a_backend_that_raises_keeps_nobody_else_from_going_home(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect(host, CluelessPlugin(), uri="clueless:///") as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        CluelessDriver.broken = True
        try:
            with pytest.raises(ReattachError) as raised:
                conn.reattach_hostdevs("vm1")
        finally:
            CluelessDriver.broken = False
        (error,) = raised.value.exceptions
        assert str(error) == "driver clueless: holders raised ValueError('out of order')"
        assert lent(host) == {DISK: "vm1"}
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


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


def rebind(host: SimulatedHost, address: str, driver: str | None) -> None:
    """Somebody else moves a device from vfio-pci."""
    host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", address)
    if driver is not None:
        host.sysfs.write(f"bus/pci/devices/{address}/driver_override", "\n")
        host.sysfs.write(f"bus/pci/drivers/{driver}/bind", address)


class Replug:
    """Pulls the card out and puts another one in, once, at the nth of these moments."""

    def __init__(self, host: SimulatedHost, moment: str, number: int) -> None:
        self._host, self._moment, self._left = host, moment, number

    def __call__(self, what: str) -> None:
        self._left -= what.startswith(self._moment)
        if self._left == 0:
            self._left = -1
            self._host.unplug(NIC)
            self._host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_another_card_in_the_middle_of_a_prepare_is_left_alone(
    host: SimulatedHost, number: int
) -> None:
    """After each write: the override, the unbind, the bind."""
    before = host.snapshot()
    replug = Replug(SimulatedHost.open(host.root), "after write", number)
    with connect(host) as conn:
        host.watch(replug)
        with pytest.raises((StateError, KernelError), match=NIC):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


class Exchange:
    """Puts a card with settings of its own in the place of another, at the nth moment."""

    def __init__(self, host: SimulatedHost, number: int) -> None:
        self._host, self._left = host, number

    def __call__(self, what: str) -> None:
        self._left -= 1
        if self._left == 0:
            self._host.clear_writes()
            self._host.unplug(NIC)
            self._host.add_pci(
                NIC,
                kernel_driver="e1000e",
                iommu_group=1,
                driver_override="mine",
                power_control="auto",
            )

    @property
    def is_done(self) -> bool:
        return self._left <= 0


@pytest.mark.parametrize("call", ["prepare", "reattach", "reset"])
def test_nothing_is_written_to_the_card_that_took_the_place_of_another(
    tmp_path: Path, call: str
) -> None:
    """At every moment, also between the last look and the write."""
    for number in count(1):
        host = SimulatedHost.create(tmp_path / f"{number}")
        host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1, power_control="on")
        exchange = Exchange(SimulatedHost.open(host.root), number)
        with connect(host) as conn:
            if call == "reattach":
                conn.prepare_hostdevs(Domain("vm1", [NIC]))
            elif call == "reset":
                conn.detach_device(NIC)
            host.watch(exchange)
            with suppress(KernelError, StateError, NotAssignableError):
                if call == "prepare":
                    conn.prepare_hostdevs(Domain("vm1", [NIC]))
                elif call == "reattach":
                    conn.reattach_hostdevs("vm1")
                else:
                    conn.reset_device(NIC)
            if not exchange.is_done:
                break
            host.watch(None)
            conn.reattach_hostdevs("vm1")
            if host.ledger.records():
                conn.reattach_device(NIC)
        assert host.ledger.records() == []
        assert (f"bus/pci/devices/{NIC}/reset", "1") not in host.writes()
        assert host.snapshot()[NIC] == {
            "kernel_driver": "e1000e",
            "driver_override": "mine",
            "power_control": "auto",
        }
    assert number > 7


def test_another_card_while_the_plugins_are_asked_is_left_alone(host: SimulatedHost) -> None:
    before, other = host.snapshot(), SimulatedHost.open(host.root)
    once = Once(lambda: Replug(other, "now", 1)("now"))
    with connect(host, once) as conn:
        with pytest.raises(StateError, match=f"{NIC} was replaced by another card"):
            conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        assert host.snapshot() == before
        assert host.ledger.records() == []
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


class Unplug:
    """Pulls a USB device out at a moment; what comes to its bus next gets its number."""

    def __init__(self, host: SimulatedHost, moment: str) -> None:
        self._host, self._moment = host, moment

    def __call__(self, what: str) -> None:
        if what.startswith(self._moment):
            self._moment = "never"
            self._host.unplug("1-3")
            self._host.add_usb("1-4", id="0951:1667")


@pytest.mark.parametrize("policy", ["mandatory", "optional"])
@pytest.mark.parametrize("moment", ["before write", "after write bus/pci/drivers/vfio-pci/bind"])
def test_a_usb_device_that_goes_in_the_middle_of_a_prepare_is_not_lent(
    host: SimulatedHost, moment: str, policy: Literal["mandatory", "optional"]
) -> None:
    """Its bus and device number, which the hypervisor is to hear, may be another device's by now."""
    host.add_usb("1-3", id="0951:1666")
    with connect(host) as conn:
        before = host.snapshot()
        host.watch(Unplug(SimulatedHost.open(host.root), moment))
        stick = USBHostdev(vendor="0951", product="1666", startup_policy=policy)
        with pytest.raises(StateError, match="1-3 was unplugged or replaced meanwhile"):
            conn.prepare_hostdevs(Domain("vm1", [stick, pci(NIC)]))
        assert host.ledger.records() == []
        host.unplug("1-4")
        host.add_usb("1-3", id="0951:1666")
        assert host.snapshot() == before


def test_a_card_that_is_replaced_while_a_plugin_is_told_of_the_end_is_not_lent(
    host: SimulatedHost,
) -> None:
    before, other = host.snapshot(), SimulatedHost.open(host.root)

    class Late:
        @hookimpl
        def hostdev_after_prepare(self) -> None:
            Replug(other, "now", 1)("now")

    wrong = pytest.raises(StateError, match=f"{NIC} was replaced by another card")
    with connect(host, Late()) as conn, wrong:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


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
