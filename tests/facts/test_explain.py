"""What is explained is what a prepare does: it lends a device exactly if no reason is told against it."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core import (
    Connection,
    Domain,
    Explanation,
    HostdevError,
    PrepareFlags,
    Refusal,
    Resetting,
    VetoError,
    open_connection,
)
from hostdev_core.inventory.inventory import look
from hostdev_core.simulated import SimulatedHost
from tests.helpers.faults import die
from tests.helpers.users import put

MACHINES = sorted((Path(__file__).parents[1] / "machines").glob("*.json"))
NIC, SIBLING = "0000:01:00.0", "0000:01:00.1"
FLAGS = (PrepareFlags.NONE, PrepareFlags.WHOLE_GROUP, PrepareFlags.REQUIRE_RESET)


def devices_of(host: SimulatedHost) -> list[str]:
    return [device.name for device in look(host).devices]


def explain(conn: Connection, name: str, flags: PrepareFlags = PrepareFlags.NONE) -> Explanation:
    (found,) = conn.explain(Domain("vm9", [name]), flags)
    return found


def refusals(error: HostdevError) -> set[tuple[object, str]]:
    """The rules of an error, each with its words."""
    if isinstance(error, VetoError):
        return {(each.rule, each.reason) for each in error.refusals if isinstance(each, Refusal)}
    return {(getattr(error, "rule", None), str(error.args[0]))}


def lend_and_return(
    conn: Connection, name: str, flags: PrepareFlags
) -> set[tuple[object, str]] | None:
    """What a prepare says against a device; None where it is lent. It is given back then."""
    try:
        conn.prepare_hostdevs(Domain("vm9", [name]), flags)
    except HostdevError as error:
        return refusals(error)
    conn.reattach_hostdevs("vm9")
    return None


def check_agreement(conn: Connection, names: Iterable[str], flags: PrepareFlags) -> None:
    """Explain each of these devices, and lend it then; all stays as it was."""
    host: Any = conn.host
    for name in names:
        before = host.snapshot()
        found = explain(conn, name, flags)
        assert host.snapshot() == before
        said = lend_and_return(conn, name, flags)
        assert (said is None) == found.is_lendable, (name, found)
        told = {(reason.rule, reason.reason) for reason in found.reasons}
        assert (said or set()) <= told, (name, found)
        assert host.snapshot() == before


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags.name)
@pytest.mark.parametrize("file", MACHINES, ids=lambda file: file.stem)
def test_on_machines_that_differ(tmp_path: Path, file: Path, flags: PrepareFlags) -> None:
    host = SimulatedHost.replay(file, tmp_path / "host")
    with open_connection(host=host) as conn:
        check_agreement(conn, devices_of(host), flags)


class Card(NamedTuple):
    """A card of a machine that hypothesis makes."""

    group: int
    kernel_driver: str | None
    class_: str
    header_type: int
    resets: str
    override: str | None
    is_used: bool
    is_lent: bool
    vfs: int


CARDS = st.builds(
    Card,
    group=st.integers(1, 3),
    kernel_driver=st.sampled_from([None, "e1000e", "vfio-pci", "pci-stub", "nouveau"]),
    class_=st.sampled_from(["020000", "030000", "060400", "0c0330"]),
    header_type=st.sampled_from([0, 0, 0, 1, 3, 0x7F]),
    resets=st.sampled_from(["flr", "", "pm bus"]),
    override=st.sampled_from([None, None, "vfio-pci", "e1000e"]),
    is_used=st.booleans(),
    is_lent=st.booleans(),
    vfs=st.integers(0, 1),
)


def build(path: Path, cards: list[Card]) -> SimulatedHost:
    host = SimulatedHost.create(path)
    for bus, card in enumerate(cards, 1):
        name = f"0000:{bus:02x}:00.0"
        host.add_pci(
            name, kernel_driver=card.kernel_driver, iommu_group=card.group, class_=card.class_,
            header_type=card.header_type, resets=card.resets, driver_override=card.override,
            sriov_totalvfs=2,
        )  # fmt: skip
        if card.vfs:
            host.add_pci(f"0000:{bus:02x}:10.0", kernel_driver="e1000e", physfn=name)
        if card.is_used:  # a mounted disk
            put(host, f"sys/bus/pci/devices/{name}/block/sd{bus}/dev", f"8:{bus}\n")
            put(host, f"sys/bus/pci/devices/{name}/block/sd{bus}/subsystem/x", "")
            with open(host.path("proc/self/mountinfo"), "a") as file:
                file.write(f"1 0 8:{bus} / /srv rw - ext4 /dev/sd{bus} rw\n")
    return host


@pytest.mark.long
@given(st.lists(CARDS, min_size=1, max_size=4), st.sampled_from(FLAGS))
def test_on_any_machine(cards: list[Card], flags: PrepareFlags) -> None:
    with TemporaryDirectory() as folder:
        host = build(Path(folder, "host"), cards)
        with open_connection("qemu:///system", host=host) as conn:
            for bus, card in enumerate(cards, 1):
                if card.is_lent:
                    try:
                        conn.prepare_hostdevs(Domain("vm1", [f"0000:{bus:02x}:00.0"]))
                    except HostdevError:
                        continue
            check_agreement(conn, devices_of(host), flags)


def kill_a_prepare(host: SimulatedHost, name: str) -> None:
    """Another process is killed in the middle of a prepare: when the device is to be bound to its stub."""
    pid = os.fork()
    if pid == 0:
        try:
            host.watch(lambda what: die(what) if "vfio-pci/bind" in what else None)
            with open_connection("qemu:///system", host=host) as conn:
                conn.prepare_hostdevs(Domain("vm1", [name]), PrepareFlags.WHOLE_GROUP)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1, net="eth0", resets="flr pm")
    host.add_pci(SIBLING, kernel_driver="snd_hda_intel", iommu_group=1)
    put(host, f"sys/bus/pci/devices/{NIC}/net/eth0/flags", "0x1003\n")
    return host


def test_all_that_matters_for_a_device_is_told(host: SimulatedHost) -> None:
    with open_connection("qemu:///system", host=host) as conn:
        found = explain(conn, NIC)
        assert not found.is_lendable
        (reason,) = found.reasons
        assert (reason.rule, reason.passable) == ("group-not-viable", False)
        assert reason.evidence == (f"{SIBLING} (class 020000, 8086:10d3) on snd_hda_intel",)
        assert found.losses == ("eth0 up",)
        assert found.iommu_group == 1
        assert found.members == ((SIBLING, "snd_hda_intel"),)
        assert found.resets == Resetting(("flr", "pm"), (SIBLING,))
        assert explain(conn, NIC, PrepareFlags.WHOLE_GROUP).is_lendable


def test_what_is_not_there(host: SimulatedHost) -> None:
    with open_connection("qemu:///system", host=host) as conn:
        missing, present = conn.explain(Domain("vm9", ["0000:09:00.0", SIBLING]))
    assert (missing.device, missing.is_lendable, missing.resets) == ("0000:09:00.0", False, None)
    assert [reason.rule for reason in missing.reasons] == ["unknown-device"]
    assert present.device == SIBLING


def test_of_a_lent_device_the_domain_is_told(host: SimulatedHost) -> None:
    with open_connection("qemu:///system", host=host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]), PrepareFlags.WHOLE_GROUP)
        found = explain(conn, NIC)
        assert [reason.rule for reason in found.reasons] == ["lent"]
        assert "vm1" in found.reasons[0].reason
        assert found.losses == ()


def test_what_a_killed_call_left_is_recovered_first(host: SimulatedHost) -> None:
    kill_a_prepare(host, SIBLING)
    with open_connection("qemu:///system", host=host) as conn:
        found = explain(conn, NIC, PrepareFlags.WHOLE_GROUP)
        assert found.is_lendable
        (first,) = found.first
        assert "vm1" in first
        assert found.warnings == ()
        conn.prepare_hostdevs(Domain("vm9", [NIC]), PrepareFlags.WHOLE_GROUP)


def test_what_vfio_would_refuse_is_foreseen(host: SimulatedHost) -> None:
    Path(host.path("proc/interrupts")).write_text(" 1: 9 IO-APIC 1-edge i8042\n")
    with open_connection("qemu:///system", host=host) as conn:
        found = explain(conn, NIC, PrepareFlags.WHOLE_GROUP)
    (reason,) = found.reasons
    assert reason.rule == "vfio-refuses"
    assert "intremap" in reason.reason
