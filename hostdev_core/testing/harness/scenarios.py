"""The scenarios: a machine, the calls before, and the one call that is disturbed."""

from collections.abc import Callable
from typing import NamedTuple

from hostdev_core import (
    Connection,
    Domain,
    LocalHostdevDriver,
    PCIHostdev,
    PrepareFlags,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import DISK, GPU, NIC, SOUND, add_card

NIC2 = "0000:05:00.0"
BARE = "0000:04:00.0"
STICK = "1-3"
FOUR = [NIC, DISK, BARE, NIC2]


class Scenario(NamedTuple):
    """`action` is disturbed; `before` has happened undisturbed.

    `goes_home`: everything is as found then. `goes_on`: a way back, which is finished although it is told
    to stop. `short`: it is disturbed in full. `writes_nothing`: only the ledger changes. `usb`: it
    needs a driver that lends USB devices; `needs_groups`: one that needs IOMMU groups.
    """

    before: Callable[[Connection], object]
    action: Callable[[Connection], object]
    goes_home: bool = False
    goes_on: bool = False
    short: bool = False
    writes_nothing: bool = False
    needs_groups: bool = False
    usb: bool = False


def make_machine(host: SimulatedHost) -> SimulatedHost:
    """Plug in four devices in groups of their own, two in one group, a USB stick."""
    add_card(host, NIC, "e1000e", 1, power_control="auto")
    add_card(host, DISK, "nvme", 2, id="144d:a808", class_="010802", driver_override="nvme")
    add_card(host, GPU, "nouveau", 3, id="10de:2204", class_="030000")
    add_card(host, SOUND, "snd_hda_intel", 3, id="10de:1aef", class_="040300")
    add_card(host, BARE, None, 4)
    add_card(host, NIC2, "e1000e", 5)
    host.add_usb(STICK, id="0951:1666", serial="60A4", kernel_driver="usb-storage")
    return host


def _nothing(conn: Connection) -> None:
    """Do nothing before the call."""


def _name_stub(conn: Connection) -> None:
    """Name the stub as the driver of a device that has none; the call loads its module, which binds it."""
    assert isinstance(conn.hostdev_driver, LocalHostdevDriver)
    override = f"bus/pci/devices/{BARE}/driver_override"
    conn.host.sysfs.write(override, f"{conn.hostdev_driver.stubs[0]}\n")


def _lend(*devices: str, flags: PrepareFlags = PrepareFlags.NONE) -> Callable[[Connection], object]:
    return lambda conn: conn.prepare_hostdevs(Domain("vm1", [*devices]), flags)


def _give_back(conn: Connection) -> object:
    return conn.reattach_hostdevs("vm1")


def _lend_mixed(conn: Connection) -> object:
    """Lend one from its host driver, and one that was detached by hand and stays on its stub afterwards."""
    return conn.prepare_hostdevs(
        Domain("vm1", [NIC, PCIHostdev(address=NIC2, managed=False), STICK])
    )


def _detach(conn: Connection) -> None:
    conn.detach_device(NIC2)


def _give_detached_back(conn: Connection) -> None:
    conn.reattach_device(NIC2)


def _give_gpu_back(conn: Connection) -> object:
    return conn.reattach_pci_hostdevs("vm1", [PCIHostdev(address=GPU)])


def _detach_and_lend(conn: Connection) -> object:
    _detach(conn)
    return _lend_mixed(conn)


def _reset(conn: Connection) -> None:
    conn.reset_device(NIC2)


_WHOLE = PrepareFlags.WHOLE_GROUP
SCENARIOS = {
    "prepare one": Scenario(_nothing, _lend(NIC), short=True),
    "reattach one": Scenario(_lend(NIC), _give_back, goes_home=True, goes_on=True, short=True),
    "prepare what the load binds": Scenario(_name_stub, _lend(BARE, NIC)),
    "prepare four": Scenario(_nothing, _lend(*FOUR)),
    "reattach four": Scenario(_lend(*FOUR), _give_back, goes_home=True, goes_on=True),
    "prepare a group": Scenario(_nothing, _lend(GPU, SOUND)),
    "reattach a group": Scenario(_lend(GPU, SOUND), _give_back, goes_home=True, goes_on=True),
    "prepare for a whole group": Scenario(_nothing, _lend(GPU, flags=_WHOLE)),
    "prepare what was a sibling": Scenario(
        _lend(GPU, flags=_WHOLE), _lend(NIC2, SOUND), needs_groups=True
    ),
    "reattach of a whole group": Scenario(
        _lend(GPU, flags=_WHOLE), _give_back, goes_home=True, goes_on=True
    ),
    "reattach one of a group": Scenario(
        _lend(GPU, SOUND), _give_gpu_back, goes_on=True, writes_nothing=True
    ),
    "prepare usb": Scenario(_nothing, _lend(STICK), writes_nothing=True, usb=True),
    "reattach usb": Scenario(
        _lend(STICK), _give_back, goes_home=True, goes_on=True, writes_nothing=True, usb=True
    ),
    "detach": Scenario(_nothing, _detach),
    "reattach a detached one": Scenario(_detach, _give_detached_back, goes_home=True, goes_on=True),
    "reset a detached one": Scenario(_detach, _reset, goes_on=True),
    "prepare mixed": Scenario(_detach, _lend_mixed, usb=True),
    "reattach mixed": Scenario(_detach_and_lend, _give_back, goes_on=True, usb=True),
}
