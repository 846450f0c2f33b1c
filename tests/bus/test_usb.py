"""A USB device whose lock is kept: nothing waits for it that did not ask for it, and nothing for ever."""

import json
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Deadlines,
    Domain,
    HostdevError,
    KernelTimeoutError,
    NotAssignableError,
    USBHostdev,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU, run
from tests.sample import NIC

SILENT, TWIN, MOUSE = "1-1", "1-2", "1-3"
SOON = Deadlines(attribute=5.0)  # a busy machine answers within it


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    host = SimulatedHost.create(tmp_path / "host", deadlines=SOON)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_usb(SILENT, id="0781:5567", serial="A1", product="Stick", manufacturer="Maker")
    host.add_usb(TWIN, id="0781:5567", serial="B2", product="Stick", manufacturer="Maker")
    host.add_usb(MOUSE, id="046d:c077", serial="M3", product="Mouse")
    return host


def test_what_is_done_with_pci_devices_reads_no_text_of_a_usb_device(
    host: SimulatedHost, conn: Connection
) -> None:
    read: list[str] = []
    host.watch_reads(read.append)
    with host.hold_lock(SILENT):
        conn.plan(Domain("vm1", [NIC]))
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert conn.reload() == ()
        conn.reattach_hostdevs("vm1")
    texts = ("/serial", "/product", "/manufacturer", "/bConfigurationValue", "/configuration")
    assert [told for told in read if told.endswith(texts)] == []


@pytest.mark.parametrize(
    "words",
    [("list",), ("list", "--json"), ("show", NIC), ("show", SILENT), ("show", "0781:5567"),
     ("plan", "vm1", NIC, *QEMU), ("prepare", "vm1", NIC, *QEMU), ("status",), ("reattach", "vm1", *QEMU),
     ("recover",)],
)  # fmt: skip
def test_a_command_ends_and_shows_who_is_silent(
    host: SimulatedHost, words: tuple[str, ...]
) -> None:
    with host.hold_lock(SILENT):
        command = [sys.executable, "-m", "hostdev_core.cli", "--host", host.root, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if words == ("list", "--json"):
        by_name = {device["address"]: device for device in json.loads(done.stdout)["devices"]}
        silent, mouse = by_name[SILENT], by_name[MOUSE]
        assert (silent["serial"], silent["label"]) == (None, None)
        assert "does not answer" in silent["unread"]
        assert (mouse["serial"], mouse["label"], mouse["unread"]) == ("M3", "Mouse", None)
        assert by_name[TWIN]["serial"] == "B2"
    elif words in {("list",), ("show", SILENT)}:
        assert "does not answer" in done.stdout


@pytest.mark.long
def test_the_device_itself_is_refused_in_time(host: SimulatedHost, conn: Connection) -> None:
    with host.hold_lock(SILENT):
        for call in (conn.plan, conn.prepare_hostdevs):
            with pytest.raises(KernelTimeoutError, match=f"{SILENT}.*does not answer"):
                call(Domain("vm1", [SILENT]))
        assert host.ledger.records() == []
        conn.prepare_hostdevs(Domain("vm1", [MOUSE]))
    conn.prepare_hostdevs(Domain("vm2", [SILENT]))
    assert [record.usb.split()[-1] for record in host.ledger.records()] == ["A1", "M3"]


@pytest.mark.long
def test_only_candidates_are_asked_and_one_that_is_silent_may_be_the_one(
    host: SimulatedHost, conn: Connection
) -> None:
    stick = USBHostdev(vendor="0781", product="5567", serial="B2")
    with host.hold_lock(MOUSE):  # none of those ids
        assert conn.plan(Domain("vm1", [stick])).devices[0].record.address == TWIN
    with host.hold_lock(SILENT):
        with pytest.raises(KernelTimeoutError, match=SILENT):
            conn.plan(Domain("vm1", [stick]))
        with pytest.raises(
            NotAssignableError, match=f"{SILENT}.*does not answer.*{TWIN}.*serial B2"
        ):
            conn.plan(Domain("vm1", ["0781:5567"]))
        port = USBHostdev(port=TWIN, serial="B2")
        assert conn.plan(Domain("vm1", [port])).devices[0].record.address == TWIN


def test_a_lent_one_that_falls_silent_is_known_and_given_back(
    host: SimulatedHost, conn: Connection
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [SILENT]))
    with host.hold_lock(SILENT):
        assert conn.reload() == ()
        (device,) = conn.get_active_usb_hostdev_list()
        assert (device.port, device.serial) == (SILENT, "A1")
        assert conn.reattach_hostdevs("vm1") == (SILENT,)
    assert host.ledger.records() == []


@pytest.mark.parametrize("known", [True, False], ids=["", "record of an older hostdev"])
def test_another_device_with_the_same_number_is_noticed(
    host: SimulatedHost, conn: Connection, known: bool
) -> None:
    conn.prepare_hostdevs(Domain("vm1", [SILENT]))
    (record,) = host.ledger.records()
    if not known:
        with host.ledger.transaction() as transaction:
            transaction.update(record, record._replace(inode=None))
    assert conn.reload() == ()
    (device,) = conn.get_active_usb_hostdev_list()
    host.unplug(SILENT)
    host.add_usb(SILENT, id="0781:5567", device=device.device, serial="C9")
    assert [drift.what for drift in conn.reload()] == ["replaced"]
    host.unplug(SILENT)
    host.add_usb(SILENT, id="0781:5567", device=device.device, serial="A1")
    assert conn.reload() == ()


@pytest.mark.long
def test_a_silent_one_keeps_one_thread_however_often_it_is_asked(host: SimulatedHost) -> None:
    before = threading.active_count()
    with host.hold_lock(SILENT):
        for _ in range(4):
            with suppress(HostdevError), open_connection("qemu:///system", host=host) as conn:
                conn.plan(Domain("vm1", [SILENT]))
        assert threading.active_count() - before <= 1


@pytest.mark.long
def test_many_silent_ones_together_take_no_longer_than_one(host: SimulatedHost) -> None:
    ports = [host.add_usb(f"1-{number}") for number in range(4, 12)]
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(host.hold_lock(port))
        done = run("list", "--json", host=host)
    silent = [d["address"] for d in json.loads(done.stdout)["devices"] if d["unread"]]
    assert sorted(silent) == sorted(ports)


def test_a_device_that_is_pulled_while_it_is_asked_is_no_error(
    host: SimulatedHost, conn: Connection
) -> None:
    pulled: list[str] = []

    def pull(told: str) -> None:
        if told.endswith(f"{MOUSE}/serial") and not pulled:
            pulled.append(told)
            host.unplug(MOUSE)

    host.watch_reads(pull)
    with suppress(HostdevError):
        conn.prepare_hostdevs(Domain("vm1", [MOUSE]))
    assert pulled
    assert host.ledger.records() == []
