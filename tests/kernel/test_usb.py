"""USB devices on a real kernel: nothing is bound for them, so the records alone must be right."""

from __future__ import annotations

import json

import pytest

from hostdev_core import DeviceInUseError, HostdevError, NotAssignableError, USBDevice

from . import inside, machines
from .guest import Guest
from .world import call, hostdev, kernel_drivers

pytestmark = pytest.mark.case("USB devices and their controller")

STICK, MOUSE = "46f4:0001", "0627:0001"


@pytest.fixture
def ports(spare: Guest) -> dict[str, list[str]]:
    """The ports where devices of these ids are, as `hostdev list` shows them."""
    done = hostdev(spare, "list", "--json")
    found: dict[str, list[str]] = {}
    for device in json.loads(done.stdout)["devices"]:
        if device["kind"] == "usb":
            found.setdefault(device["ids"], []).append(device["address"])
    return found


def test_by_ids_by_port_and_by_number(spare: Guest, ports: dict[str, list[str]]) -> None:
    (port,) = ports[STICK]
    number = spare.check(f"printf %03d:%03d $(cat /sys/bus/usb/devices/{port}/{{busnum,devnum}})")
    bus, device = (int(part) for part in number.split(":"))
    vendor, product = STICK.split(":")
    words = {
        STICK: f"vendorid=0x{vendor},productid=0x{product}",
        port: f"hostbus={bus},hostport={port.partition('-')[2]}",
        number: f"hostbus={bus},hostaddr={device}",
    }
    for wanted in (STICK, port, number):
        done = hostdev(spare, "prepare", "vm1", wanted, "--json")
        (assignment,) = json.loads(done.stdout)["assignments"]
        assert assignment["address"] == port
        assert assignment["arguments"][1] == f"usb-host,{words[wanted]}"
        spare.check(f"test -c {assignment['node']}")
        assert call(spare, inside.lists).usb == {port: "vm1"}
        assert hostdev(spare, "reattach", "vm1").returncode == 0


def test_two_equal_mice_are_refused_by_ids_and_lent_by_port(
    spare: Guest, ports: dict[str, list[str]]
) -> None:
    left, right = ports[MOUSE]
    with pytest.raises(NotAssignableError, match=f"{left} .*{right} "):
        call(spare, inside.prepare, "vm1", [MOUSE])
    call(spare, inside.prepare, "vm1", [left])
    call(spare, inside.prepare, "vm2", [right])
    with pytest.raises(DeviceInUseError, match="vm2"):
        call(spare, inside.prepare, "vm1", [right])
    assert call(spare, inside.lists).usb == {left: "vm1", right: "vm2"}
    assert call(spare, inside.reattach, "vm1") == (left,)
    assert call(spare, inside.reattach, "vm2") == (right,)


def test_neither_a_lent_controller_nor_its_device_can_be_lent_twice(
    spare: Guest, ports: dict[str, list[str]]
) -> None:
    (stick,), xhci = ports[STICK], machines.XHCI
    mice = ports[MOUSE]
    (assignment,) = call(spare, inside.prepare, "vm1", [stick])
    assert isinstance(assignment.device, USBDevice)
    assert assignment.device.controller == xhci
    with pytest.raises(DeviceInUseError, match=rf"{xhci}.*{stick}.*vm1|{stick}.*vm1.*{xhci}"):
        call(spare, inside.prepare, "vm2", [xhci])
    call(spare, inside.reattach, "vm1")
    with pytest.raises(HostdevError, match=rf"{xhci}.*{mice[0]}|{mice[0]}.*{xhci}"):
        call(spare, inside.prepare, "vm2", [xhci, mice[0]])
    call(spare, inside.prepare, "vm2", [xhci])
    assert kernel_drivers(spare, xhci) == ["vfio-pci"]
    assert call(spare, inside.reattach, "vm2") == (xhci,)
    assert kernel_drivers(spare, xhci) == ["xhci_hcd"]
