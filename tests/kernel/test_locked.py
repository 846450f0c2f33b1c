"""A device whose lock somebody keeps: nobody waits for it who did not ask for it, and nobody for ever."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hostdev_core import KernelTimeoutError

from . import facts, inside, inside_locked, machines
from .guest import Guest
from .inside_facts import Answers
from .test_usb import STICK
from .world import call, hostdev, kernel_drivers

pytestmark = pytest.mark.case("a device whose lock is kept")

NIC = machines.NIC


@pytest.fixture(scope="module")
def port(spare: Guest) -> str:
    """Where the stick is, whose texts nobody has read yet."""
    spare.check("modprobe lab_lock")
    vendor = STICK.partition(":")[0]
    return spare.check(
        f"cd /sys/bus/usb/devices; grep -l {vendor} */idVendor | cut -d / -f 1"
    ).strip()


@contextmanager
def locked(guest: Guest, name: str) -> Generator[None]:
    guest.check(f"echo {name} > {inside_locked.LOCK}")
    try:
        yield
    finally:
        guest.check(f"echo > {inside_locked.LOCK}")


def test_a_locked_usb_device_keeps_nobody_from_a_pci_device(spare: Guest, port: str) -> None:
    with locked(spare, port):
        listed = json.loads(hostdev(spare, "list", "--json").stdout)["devices"]
        (stick,) = (device for device in listed if device["address"] == port)
        assert (stick["serial"], "does not answer" in stick["unread"]) == (None, True)
        assert "does not answer" in hostdev(spare, "show", port).stdout
        for words in (("plan", "vm1", NIC), ("prepare", "vm1", NIC), ("status",), ("recover",)):
            done = hostdev(spare, *words)
            assert (done.returncode, done.stderr) == (0, ""), words
        assert kernel_drivers(spare, NIC) == ["vfio-pci"]
        assert hostdev(spare, "reattach", "vm1").returncode == 0
        assert kernel_drivers(spare, NIC) == ["e1000e"]


def test_a_locked_usb_device_is_refused_in_time_and_given_back(spare: Guest, port: str) -> None:
    with locked(spare, port):
        with pytest.raises(KernelTimeoutError, match=f"{port}.*does not answer"):
            call(spare, inside.prepare, "vm1", [port])
        assert call(spare, inside.records) == {}
    call(spare, inside.prepare, "vm1", [port])
    with locked(spare, port):
        assert call(spare, inside.lists).usb == {port: "vm1"}
        assert call(spare, inside.reattach, "vm1") == (port,)


@pytest.fixture(scope="module")
def answers(spare: Guest, port: str) -> Answers:
    return {
        **call(spare, inside_locked.run_locked_facts, port, NIC),
        **call(spare, inside_locked.run_sysctl_facts),
    }


@pytest.mark.parametrize(
    "name",
    [fact.name for fact in facts.LOCKED_USB_FACTS + facts.LOCKED_PCI_FACTS + facts.SYSCTL_FACTS],
)
def test_fact(name: str, answers: Answers) -> None:
    seen, expected = answers[name]
    assert seen == expected
