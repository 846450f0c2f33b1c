"""What is given back, by which name, and what a caller learns of the rest."""

import errno
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    InputError,
    NotAssignableError,
    PCIDevice,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    Returned,
    USBHostdev,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, ask, run
from tests.sample import GPU, NIC, SOUND, make_registry

PHONE = {"id": "18d1:4e22", "serial": "0A 1:B"}


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci(GPU, kernel_driver="nouveau", iommu_group=3)
    host.add_pci(SOUND, kernel_driver="snd_hda_intel", iommu_group=3)
    host.add_usb("1-1", device=4, **PHONE)  # type: ignore[arg-type]
    host.add_usb("1-2", device=5, id="046d:c077")
    return host


NAMES: dict[str, Any] = {
    "ids": "18d1:4e22",
    "port": "1-1",
    "number of then": "001:004",
    "vendor": USBHostdev(vendor="18d1"),
    "serial": USBHostdev(serial="0A 1:B"),
    "serial and ids": USBHostdev(vendor="18D1", product="4E22", serial="0A 1:B"),
}


def unplug(host: SimulatedHost) -> None:
    host.unplug("1-1")


def renumber(host: SimulatedHost) -> None:
    host.unplug("1-1")
    host.add_usb("1-1", device=9, **PHONE)  # type: ignore[arg-type]


def move(host: SimulatedHost) -> None:
    host.unplug("1-1")
    host.add_usb("1-7", device=9, **PHONE)  # type: ignore[arg-type]


def replace(host: SimulatedHost) -> None:
    host.unplug("1-1")
    host.add_usb("1-1", device=4, id="0951:1666")


@pytest.mark.parametrize("event", [unplug, renumber, move, replace])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_usb_device_goes_by_the_name_it_had_when_it_was_lent(
    host: SimulatedHost, conn: Connection, name: Any, event: Any
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [name, "1-2"]))
    event(host)
    assert conn.reattach_usb_hostdevs("vm1", [name]) == ("1-1",)
    assert [record.address for record in host.ledger.records()] == ["1-2"]


def test_the_command_takes_the_name_it_was_lent_by(host: SimulatedHost) -> None:
    assert ask("prepare", "vm1", "18d1:4e22", NIC, host=host)
    host.unplug("1-1")
    answer = ask("reattach", "vm1", "18d1:4e22", "1-2", host=host)
    assert (answer["returned"], answer["gone"], answer["not_held"]) == (["1-1"], ["1-1"], ["1-2"])
    done = run("reattach", "vm1", NIC, "1-1", host=host)
    assert done.stdout.startswith(f"{NIC} is given back\n1-1 is unknown: there is no such device")


def test_a_number_is_that_of_then_and_else_the_one_of_now(
    host: SimulatedHost, conn: Connection
) -> None:
    """001:005 was 1-2 when it was lent, and is the phone by now: the record says which is meant."""
    conn.prepare_hostdevs(Domain("vm1", ["1-1", "1-2"]))
    host.unplug("1-2")
    host.unplug("1-1")
    host.add_usb("1-1", device=5, **PHONE)  # type: ignore[arg-type]
    assert conn.reattach_usb_hostdevs("vm1", ["001:005"]) == ("1-2",)
    assert conn.reattach_usb_hostdevs("vm1", ["001:005"]) == ("1-1",)


@pytest.mark.parametrize("present", [True, False])
def test_ids_that_several_of_its_devices_have_are_refused(
    host: SimulatedHost, conn: Connection, *, present: bool
) -> None:
    host.add_usb("1-3", id="046d:c077")
    conn.prepare_hostdevs(Domain("vm1", [NIC, "1-2", "1-3"]))
    if not present:
        host.unplug("1-2")
    before = host.snapshot(), host.ledger.records()
    with pytest.raises(NotAssignableError, match=r"1-2 .*1-3 ") as raised:
        conn.reattach_usb_hostdevs("vm1", ["046d:c077"])
    assert raised.value.rule == "ambiguous-device"
    done = run(*QEMU, "reattach", "vm1", NIC, "046d:c077", host=host)
    assert (done.returncode, "[ambiguous-device]" in done.stderr) == (1, True)
    assert (host.snapshot(), host.ledger.records()) == before


def test_ids_of_another_domains_device_are_no_matter(host: SimulatedHost, conn: Connection) -> None:
    host.add_usb("1-3", id="046d:c077")
    conn.prepare_hostdevs(Domain("vm1", ["1-2"]))
    conn.prepare_hostdevs(Domain("vm2", ["1-3"]))
    assert conn.reattach_usb_hostdevs("vm1", ["046d:c077"]) == ("1-2",)
    assert conn.reattach_usb_hostdevs("vm1", ["046d:c077"]).not_held == ("046d:c077",)


MIXED: list[Any] = ["1-1", "01:00.0", USBHostdev(port="1-2"), PCIHostdev(address=GPU)]


def test_each_twin_takes_its_own_kind_of_a_mixed_list(
    host: SimulatedHost, conn: Connection
) -> None:
    whole = PrepareFlags.WHOLE_GROUP
    before = host.snapshot()
    assert conn.hostdev_driver is not None
    for door, me in (conn, ()), (conn.hostdev_driver, (conn,)):
        call: Any = door
        vm1: Any = Domain("vm1")
        pci = call.prepare_pci_hostdevs(*me, vm1, MIXED, whole)
        assert [a.device.name for a in pci] == [NIC, GPU]
        assert conn.get_active_usb_hostdev_list() == ()
        usb = call.prepare_usb_hostdevs(*me, vm1, MIXED, whole)
        assert [a.device.name for a in usb] == ["1-1", "1-2"]
        assert {*call.reattach_usb_hostdevs(*me, vm1, MIXED)} == {"1-1", "1-2"}
        assert {*call.reattach_pci_hostdevs(*me, vm1, MIXED)} == {NIC, GPU, SOUND}
        assert (host.snapshot(), host.ledger.records()) == (before, [])
    for nothing in (
        conn.prepare_pci_hostdevs("vm1", ["1-1"]),
        conn.prepare_usb_hostdevs("vm1", NIC),
    ):
        assert nothing == ()


def test_a_device_that_is_listed_can_be_handed_on_as_it_is(
    host: SimulatedHost, conn: Connection
) -> None:
    before = host.snapshot()
    named = [d for d in conn.list_devices() if d.name in {NIC, "1-1", "1-2"}]
    conn.prepare_hostdevs(Domain("vm1", named))
    host.unplug("1-2")
    held = [
        *conn.get_domain_active_pci_hostdev_list("vm1"),
        *conn.get_domain_active_usb_hostdev_list("vm1"),
    ]
    assert conn.reattach_pci_hostdevs("vm1", held) == (NIC,)
    returned = conn.reattach_usb_hostdevs("vm1", held)
    assert ({*returned}, returned.gone) == ({"1-1", "1-2"}, ("1-2",))
    host.add_usb("1-2", device=5, id="046d:c077")
    conn.prepare_pci_hostdevs("vm1", named[0])
    conn.reattach_pci_hostdevs("vm1", named[0])
    assert (host.snapshot(), host.ledger.records()) == (before, [])


@pytest.mark.parametrize("thing", [5, [5], [None], ["nonsense"], [("1-1",)], [{"port": "1-1"}]])
def test_what_is_no_device_at_all_is_refused(conn: Connection, thing: Any) -> None:
    calls: list[Any] = [
        conn.prepare_pci_hostdevs,
        conn.prepare_usb_hostdevs,
        conn.reattach_pci_hostdevs,
        conn.reattach_usb_hostdevs,
    ]
    for call in calls:
        with pytest.raises(InputError):
            call("vm1", thing)


@pytest.mark.parametrize("worker", [False, True])
def test_what_waits_is_told_apart_from_what_was_not_held(
    host: SimulatedHost, *, worker: bool
) -> None:
    with open_connection("qemu:///system", host=host, worker=worker) as conn:
        conn.prepare_hostdevs(Domain("vm1", [GPU, SOUND]))
        first = conn.reattach_pci_hostdevs("vm1", [GPU, NIC, "0000:0f:00.0"])
        assert first == ()
        assert (first.waiting, first.not_held) == ((GPU,), (NIC, "0000:0f:00.0"))
        again = conn.reattach_pci_hostdevs("vm1", [GPU])
        assert (again, again.waiting, again.not_held) == ((), (GPU,), ())
        last = conn.reattach_hostdevs("vm1")
        assert ({*last}, last.waiting, last.not_held, last.gone) == ({GPU, SOUND}, (), (), ())
        host.unplug(NIC)
        assert conn.reattach_hostdevs("vm1") == Returned() == ()


def test_what_was_given_back_and_is_gone(host: SimulatedHost, conn: Connection) -> None:
    conn.prepare_hostdevs(Domain("vm1", [NIC, "1-1", "1-2"]))
    host.unplug(NIC)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    renumber(host)
    returned = conn.reattach_hostdevs("vm1")
    assert ({*returned}, returned.gone) == ({NIC, "1-1", "1-2"}, (NIC,))
    copy = pickle.loads(pickle.dumps(returned))
    assert (copy, copy.gone, type(copy)) == (returned, (NIC,), Returned)


def test_each_device_that_is_not_home_has_an_error_of_its_own(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [GPU, SOUND, NIC, "1-1"]))
    with host.hold(GPU), pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    error = raised.value
    assert len(error.exceptions) == 2
    assert {*error.by_device} == {GPU, SOUND}
    for address, part in error.by_device.items():
        assert isinstance(part, DeviceInUseError)
        assert part.device == address
        assert address in str(part)
    assert {*error.returned} == {NIC, "1-1"}
    assert {*pickle.loads(pickle.dumps(error)).by_device} == {GPU, SOUND}
    # `except*` splits it, and each part says what was given back.
    for part in error.split(lambda each: getattr(each, "device", None) == GPU):
        assert isinstance(part, ReattachError)
        assert len(part.by_device) == 1
        assert part.returned == error.returned
    assert {*conn.reattach_hostdevs("vm1")} == {GPU, SOUND}


def test_the_error_of_a_kernel_that_refuses_names_its_device(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [GPU, SOUND, NIC]))
    host.on_write("*/vfio-pci/unbind", errno=errno.EIO, count=3)
    with pytest.raises(ReattachError) as raised:
        conn.reattach_hostdevs("vm1")
    assert len(raised.value.exceptions) == 3
    assert {*raised.value.by_device} == {GPU, SOUND, NIC}
    assert raised.value.returned == ()
    assert {*conn.recover()} == {GPU, SOUND, NIC}


class Leaving:
    """Writes down what leaves, before it does."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @hookimpl
    def hostdev_before_reattach(self, devices: Sequence[PCIDevice]) -> None:
        self.names += [device.name for device in devices]


def test_siblings_leave_with_the_one_that_is_named(host: SimulatedHost) -> None:
    """And plugins hear of all of them before anything is done."""
    before, leaving, registry = host.snapshot(), Leaving(), make_registry()
    registry.register(leaving)
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [PCIHostdev(address=GPU)]), PrepareFlags.WHOLE_GROUP)
        assert {*conn.reattach_pci_hostdevs("vm1", [PCIHostdev(address=GPU)])} == {GPU, SOUND}
    assert sorted(leaving.names) == [GPU, SOUND]
    assert host.snapshot() == before
