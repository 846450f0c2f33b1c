"""Another card comes in a device's place, or the device goes, in the middle of a call."""

from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from hostdev_core import (
    Domain,
    KernelError,
    NotAssignableError,
    StateError,
    USBHostdev,
    hookimpl,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.crossing import Once, pci
from tests.sample import DISK, NIC, connect


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
