"""A rule that cannot see refuses: one look that fails is no sign that nothing speaks against a loan."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from hostdev_core import (
    Domain,
    HostdevError,
    PCIAddress,
    PCIHostdev,
    Registry,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.in_use import STICK, Tagged, node, usb_node
from tests.helpers.looks import Nth
from tests.helpers.users import CARD, having_open, mounted, plug_in, stack

NIC, BARE = "0000:03:00.0", "0000:07:00.0"
NO_MODE = "enable_unsafe_noiommu_mode"
FAILURES = (errno.EIO, errno.EACCES, errno.ENOMEM, errno.EMFILE)
Scene = Callable[[SimulatedHost, ExitStack], str | PCIHostdev]


@pytest.fixture
def machine(tmp_path: Path) -> SimulatedHost:
    return make(tmp_path / "machine")


def make(folder: Path) -> SimulatedHost:
    host = SimulatedHost.create(folder)
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=3)
    plug_in(host)
    host.modules.load("vfio-pci")  # before a load all would be looked at once more
    host.add_usb(STICK, id="0951:1666", serial="60A4", kernel_driver="usb-storage")
    return host


def _group_of(host: SimulatedHost, address: str) -> Path:
    return Path(os.path.realpath(host.sysfs.path(f"bus/pci/devices/{address}/iommu_group")))


def not_isolated(host: SimulatedHost, _: ExitStack) -> str:
    """A group that VFIO made in its no-IOMMU mode."""
    host.add_pci(BARE, kernel_driver="vfio-pci", driver_override="vfio-pci", iommu_group=7)
    (_group_of(host, BARE) / "name").write_text("vfio-noiommu\n")
    os.rename(host.path("dev/vfio/7"), host.path("dev/vfio/noiommu-7"))
    return BARE


def not_isolated_yet(host: SimulatedHost, _: ExitStack) -> PCIHostdev:
    """Its module's file says that VFIO will not bind it; the options of modprobe say it would."""
    folder = Path(host.sysfs.path("module/vfio/parameters"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NO_MODE).write_text("N\n")
    Path(host.path("etc/modprobe.d/vfio.conf")).write_text(f"options vfio {NO_MODE}=1\n")
    host.add_pci(BARE, kernel_driver="e1000e")
    os.unlink(host.sysfs.path(f"bus/pci/devices/{BARE}/iommu_group"))
    return PCIHostdev(address=PCIAddress.parse(BARE), allow=frozenset({"no-isolation"}))


def reserved(host: SimulatedHost, _: ExitStack) -> str:
    path = _group_of(host, NIC) / "reserved_regions"
    path.unlink(missing_ok=True)
    path.write_text("0x00000000dd800000 0x00000000ddffffff direct\n")
    return NIC


def usb_in_use(host: SimulatedHost, doing: ExitStack) -> str:
    doing.enter_context(having_open(usb_node(host)))
    return STICK


def pci_in_use(host: SimulatedHost, doing: ExitStack) -> str:
    doing.enter_context(having_open(node(host, NIC, "uio/uio0", "uio0")))
    return NIC


def on_a_disk(host: SimulatedHost, _: ExitStack) -> str:
    mounted(host)
    return CARD


def stacked(host: SimulatedHost, _: ExitStack) -> str:
    stack(host, "dm-7", "nvme0n1p2")
    return CARD


def elsewhere(host: SimulatedHost, _: ExitStack) -> str:
    (Path(host.sysfs.path(f"bus/pci/devices/{CARD}/net")) / "eth9").mkdir()
    return CARD


VFIO: dict[Scene, str] = {  # and what the rule reads
    not_isolated: "/iommu_groups/7/name",
    not_isolated_yet: NO_MODE,
    reserved: "/reserved_regions",
}
USES: dict[Scene, str] = {
    usb_in_use: f"/{STICK}/dev",
    pci_in_use: "/uio0/dev",
    stacked: "/dm-7/dev",
}


class LookAt(Nth):
    """Lets the n-th look at a path with this ending fail."""

    def __init__(self, ending: str, number: int) -> None:
        super().__init__(number, errno.EIO)
        self.ending = ending

    def __call__(self, told: str) -> None:
        if told.endswith(self.ending):
            super().__call__(told)


def lends_nothing(
    host: SimulatedHost, registry: Registry, wanted: str | PCIHostdev, ending: str, number: int
) -> bool:
    """Refused, whatever for, and all is as it was; whether there was such a look."""
    before, own, look = host.snapshot(), Tagged(host.root), LookAt(ending, number)
    with open_connection("qemu:///system", host=own, registry=registry) as conn:
        for call in (conn.plan, conn.prepare_hostdevs):
            look = LookAt(ending, number)
            own.watch_reads(look)
            with pytest.raises(HostdevError):
                call(Domain("vm1", [wanted]))
            own.watch_reads(None)
    assert host.ledger.records() == []
    assert host.snapshot() == before
    return look.hit is not None


@pytest.mark.parametrize("scenes", [VFIO, USES])
def test_the_look_that_a_rule_rests_on_fails(
    tmp_path: Path, registry: Registry, scenes: dict[Scene, str]
) -> None:
    for scene, ending in scenes.items():
        machine = make(tmp_path / scene.__name__)
        with ExitStack() as doing:
            wanted = scene(machine, doing)
            looks = [
                number
                for number in (1, 2)
                if lends_nothing(machine, registry, wanted, ending, number)
            ]
            assert looks, ending


@pytest.mark.long
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("scene", [*VFIO, *USES, on_a_disk, elsewhere])
def test_any_one_look_fails(
    machine: SimulatedHost, registry: Registry, scene: Scene, failure: int
) -> None:
    with ExitStack() as doing:
        wanted = scene(machine, doing)
        own = Tagged(machine.root)
        with open_connection("qemu:///system", host=own, registry=registry) as conn:
            for number in count(1):
                look = Nth(number, failure)
                own.watch_reads(look)
                with pytest.raises(HostdevError):
                    conn.prepare_hostdevs(Domain("vm1", [wanted]))
                own.watch_reads(None)
                assert machine.ledger.records() == [], look.hit
                if look.hit is None:
                    break
