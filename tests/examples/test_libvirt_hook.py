"""examples/libvirt_hook_qemu.py, called as libvirt calls it, on a simulated host."""

import errno
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hostdev_core import Domain, InputError
from hostdev_core.simulated import SimulatedHost
from tests.sample import MOUSE, NIC, OTHER, STICK

pytestmark = pytest.mark.sample

HOOK = Path(__file__).parents[2] / "examples" / "libvirt_hook_qemu.py"
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"

PCI = """<hostdev mode='subsystem' type='pci' {more}><driver name='vfio'/>
  <source><address domain='0x0000' bus='{bus}' slot='0x00' function='0x0'/></source>
  <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></hostdev>"""
FIRST = PCI.format(bus="0x01", more="managed='no'")
SECOND = PCI.format(bus="0x02", more="")  # libvirt leaves out what is the default
INTERFACE = """<interface type='hostdev' managed='no'><mac address='52:54:00:6d:90:02'/>
  <source><address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/></source>
  </interface><interface type='network'><source network='default'/></interface>"""
USB = "<hostdev mode='subsystem' type='usb' managed='yes'><source {}>{}</source></hostdev>"
IDS = "<vendor id='0x0951'/><product id='0x1666'/>"


def call(
    host: SimulatedHost, name: str, operation: str, *devices: str, xml: str | None = None
) -> tuple[int, str]:
    """Its exit code, and what it said on stderr; on stdout it says nothing."""
    text = f"<domain type='kvm' id='1'><name>{name}</name><uuid>{UUID}</uuid><devices>"
    text += "".join((*devices, "<graphics type='vnc'/></devices></domain>"))
    done = subprocess.run(
        [sys.executable, HOOK, name, operation, "begin", "-"],
        input=text if xml is None else xml,
        env={**os.environ, "HOSTDEV_DEFAULT_URI": f"test://{host.root}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def lent(host: SimulatedHost) -> dict[str, str]:
    """Which domain has which device."""
    return {r.address: r.owner.domain for r in host.ledger.records() if r.owner is not None}


@pytest.mark.parametrize(
    ("devices", "addresses"),
    [
        ([FIRST], [NIC]),
        ([FIRST, SECOND], [NIC, OTHER]),
        ([FIRST, INTERFACE], [NIC, OTHER]),
        ([USB.format("", IDS)], [STICK]),
        ([USB.format("", "<address bus='1' device='2'/>"), FIRST], [MOUSE, NIC]),
        ([USB.format("", IDS + "<address bus='0x001' device='0x004'/>")], [STICK]),
        ([USB.format("", "<address bus='001' device='004'/>")], [STICK]),
        ([USB.format("", "<address bus='1' port='3'/>")], [STICK]),
        ([USB.format("guestReset='off'", IDS + "<address bus='0x1' port='3'/>")], [STICK]),
        ([USB.format("", "<address bus='1' port='3' device='4'/>"), FIRST], [STICK, NIC]),
        ([USB.format("startupPolicy='requisite'", "<address bus='1' port='4.1.2'/>")], []),
        ([USB.format("startupPolicy='optional'", "<vendor id='0x1'/><product id='2'/>")], []),
        ([], []),
    ],
    ids=[
        *("one", "two", "interface", "ids", "number", "ids and number", "number as lsusb has it"),
        *("port", "ids and port", "port and number", "missing port", "missing", "none"),
    ],
)
def test_a_domain_has_its_devices_from_prepare_to_release(
    host: SimulatedHost, devices: list[str], addresses: list[str]
) -> None:
    before = host.snapshot()
    assert call(host, "vm1", "prepare", *devices) == (0, "")
    assert lent(host) == dict.fromkeys(addresses, "vm1")
    assert all(record.owner and record.owner.uuid == UUID for record in host.ledger.records())
    for address in {NIC, OTHER} & {*addresses}:
        assert host.snapshot()[address]["kernel_driver"] == "vfio-pci"
    assert call(host, "vm1", "release", *devices) == (0, "")
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_nothing_is_done_in_between(host: SimulatedHost) -> None:
    call(host, "vm1", "prepare", FIRST)
    now = host.snapshot(), host.ledger.records()
    for operation in ("start", "started", "reconnect", "stopped", "migrate"):
        assert call(host, "vm1", operation, FIRST, SECOND) == (0, "")
        assert (host.snapshot(), host.ledger.records()) == now


@pytest.mark.parametrize(
    "device",
    [
        PCI.format(bus="0x01", more="managed='yes'"),
        FIRST.replace("'pci' managed", "'mdev' managed"),
        FIRST.replace("subsystem", "capabilities"),
    ],
    ids=["managed by libvirt", "mediated", "capabilities"],
)
def test_what_is_libvirts_is_left_to_it(host: SimulatedHost, device: str) -> None:
    before = host.snapshot()
    assert call(host, "vm1", "prepare", device) == (0, "")
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_a_second_domain_is_refused_and_its_release_changes_nothing(host: SimulatedHost) -> None:
    call(host, "vm1", "prepare", FIRST)
    now = host.snapshot()
    code, told = call(host, "vm2", "prepare", SECOND, FIRST)
    assert code == 1
    assert told.startswith(f"hostdev: prepare vm2: {NIC} is in use by domain 'vm1' of test")
    assert call(host, "vm2", "release", SECOND, FIRST) == (0, "")
    assert (host.snapshot(), lent(host)) == (now, {NIC: "vm1"})


def test_a_domain_whose_release_never_came_starts_again(host: SimulatedHost) -> None:
    before = host.snapshot()
    call(host, "vm1", "prepare", FIRST)
    assert call(host, "vm1", "prepare", FIRST, SECOND) == (0, "")
    assert call(host, "vm1", "release") == (0, "")
    assert host.snapshot() == before


def test_a_failing_kernel_fails_the_start_and_leaves_all_as_found(host: SimulatedHost) -> None:
    before = host.snapshot()
    host.on_write("*/vfio-pci/bind", value=OTHER, errno=errno.EIO)
    code, told = call(host, "vm1", "prepare", FIRST, SECOND)
    assert code == 1
    assert "Input/output error" in told
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def test_what_is_not_given_back_is_named(host: SimulatedHost) -> None:
    call(host, "vm1", "prepare", FIRST, SECOND)
    with host.hold(NIC):
        code, told = call(host, "vm1", "release", FIRST, SECOND)
    assert code == 1
    assert f"{NIC} is held by" in told
    assert lent(host) == {NIC: "vm1"}


@pytest.mark.parametrize(
    ("xml", "told"),
    [
        ("", "no element found"),
        ("<domain><devices>", "no element found"),
        ("<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>", "DOCTYPE"),
        (f"<domain>{'<a/>' * 5_000_000}</domain>", "more than"),
        ("<domain><devices>" + FIRST.replace("'0x01'", "'one'"), "no element found"),
    ],
    ids=["empty", "cut", "doctype", "huge", "cut too"],
)
def test_what_is_no_domain_is_refused(host: SimulatedHost, xml: str, told: str) -> None:
    before = host.snapshot()
    code, said = call(host, "vm1", "prepare", xml=xml)
    assert code == 1
    assert said.startswith("hostdev: prepare vm1: this is no domain XML of libvirt: ")
    assert told in said
    assert host.snapshot() == before


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (FIRST.replace("'0x01'", "'one'"), "'one'"),
        (FIRST.replace("'0x01'", "'0x09'"), "no PCI device 0000:09:00.0"),
        (FIRST.replace("'0x00'", "'0x99'"), "0000:01:99.0"),
        (FIRST.replace("<address domain", "<other domain"), "no address"),
        (USB.format("", "<address bus='1'/>"), "no bus and device, nor bus and port"),
        (USB.format("", "<address device='2'/>"), "no bus and device, nor bus and port"),
        (USB.format("", "<address port='1.2'/>"), "no bus and device, nor bus and port"),
        (USB.format("", "<address bus='1' port='9'/>"), "no USB device 1-9"),
        (USB.format("", "<address bus='1' port='1-1'/>"), "'1-1-1' is no USB port"),
        (USB.format("", "<address bus='2' port='1' device='2'/>"), "no USB device 2-1 002:002"),
        (USB.format("", "<address bus='08' device='2'/>"), "08"),
        (USB.format("", ""), "a USB device needs"),
        (USB.format("startupPolicy='never'", IDS), "'never'"),
        (USB.format("", "<vendor id='0x046d'/><product id='0xc077'/>"), "1-2"),
    ],
)
def test_a_device_that_cannot_be_found_is_named(
    host: SimulatedHost, device: str, told: str
) -> None:
    before = host.snapshot()
    code, said = call(host, "vm1", "prepare", SECOND, device)
    assert code == 1
    assert told in said
    assert (host.snapshot(), host.ledger.records()) == (before, [])


def load() -> Any:
    """The hook as a module."""
    spec = importlib.util.spec_from_file_location("hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


read_domain: Callable[[str, bytes], Domain] = load().read_domain
NUMBER = USB.format("", "<address bus='1' device='2' port='1.2'/>")
WHOLE = (
    f"<domain><devices>{FIRST}{INTERFACE}{NUMBER}{USB.format('', IDS)}</devices></domain>".encode()
)
PIECES = st.sampled_from([b"", b"'", b"0x", b"-1", b"99999", b"<source/>", b"\xff", b"\0", b"1"])


@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 12), PIECES), min_size=1, max_size=3
    )
)
@example([(0, 0, b"<?xml version='1.0' encoding='none'?>")])
@example([(0, 0, b"<?xml version='1.0' encoding='utf-7'?>")])
@settings(max_examples=200, derandomize=True, deadline=None)
def test_a_damaged_domain_is_read_or_refused(changes: list[tuple[int, int, bytes]]) -> None:
    data = WHOLE
    for start, length, piece in changes:
        data = data[:start] + piece + data[start + length :]
    try:
        domain = read_domain("vm1", data)
    except InputError:
        return
    assert len(domain.hostdevs) <= 4
