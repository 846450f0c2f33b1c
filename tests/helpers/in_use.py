"""A device in use: nodes of it, and the refusals of a call for it."""

from collections.abc import Callable

import pytest

from hostdev_core import (
    Connection,
    Domain,
    PCIAddress,
    PCIHostdev,
    Refusal,
    USBHostdev,
    VetoError,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.users import plug_in, put

STICK = "1-4"


@pytest.fixture
def machine(host: SimulatedHost) -> SimulatedHost:
    """The small machine with a card, a USB controller and a stick that something may use.

    A file of tests takes this fixture by its name: `machine = in_use.machine`.
    """
    plug_in(host)
    host.add_usb(STICK, id="0951:1666", serial="60A4", kernel_driver="usb-storage")
    return host


def node(host: SimulatedHost, device: str, folder: str, place: str) -> str:
    """Let a device have one more node; its path."""
    bus = "pci" if ":" in device else "usb"
    put(host, f"sys/bus/{bus}/devices/{device}/{folder}/dev", "239:7\n")
    put(host, f"dev/{place}", "")
    return host.path(f"dev/{place}")


def usb_node(host: SimulatedHost, port: str = STICK) -> str:
    folder = f"bus/usb/devices/{port}"
    bus, number = (int(host.sysfs.read(f"{folder}/{name}") or 0) for name in ("busnum", "devnum"))
    return host.path(f"dev/bus/usb/{bus:03}/{number:03}")


def wanted(name: str, *allow: str) -> Domain:
    rules = frozenset(allow)
    if ":" in name:
        return Domain("vm1", [PCIHostdev(address=PCIAddress.parse(name), allow=rules)])
    return Domain("vm1", [USBHostdev(port=name, allow=rules)])


def refusals(error: VetoError) -> list[Refusal]:
    return [each for each in error.refusals if isinstance(each, Refusal)]


def refused(host: SimulatedHost, conn: Connection, name: str) -> list[Refusal]:
    """What plan, prepare and detach refuse alike, with nothing changed."""
    before, known = host.snapshot(), host.ledger.records()
    host.clear_writes()
    calls: list[Callable[[], object]] = [
        lambda: conn.plan(wanted(name)),
        lambda: conn.prepare_hostdevs(wanted(name)),
        *([lambda: conn.detach_device(name)] if ":" in name else []),
    ]
    answers: list[list[Refusal]] = []
    for call in calls:
        with pytest.raises(VetoError) as raised:
            call()
        answers.append(refusals(raised.value))
    assert all(answer == answers[0] for answer in answers)
    assert host.snapshot() == before
    assert host.ledger.records() == known
    assert [path for path, _ in host.writes() if path != "modprobe"] == []
    return answers[0]


class Tagged(SimulatedHost):
    """Where `eth9` is shown in another network namespace only."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        folders = self.sysfs.folders
        self.sysfs.folders = lambda path: [  # type: ignore[method-assign]
            name for name in folders(path) if name != "eth9"
        ]
