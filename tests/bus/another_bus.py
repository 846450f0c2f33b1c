"""A bus that hostdev knows nothing of: what a host, a hostdev and a contract of it take."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from hostdev_core import Connection, Domain, LocalHostdevDriver, UsedBy
from hostdev_core.bus.bus import Bus
from hostdev_core.bus.buses import Buses
from hostdev_core.model.names import is_path_part
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import NIC, ContractBase, add_card
from hostdev_core.testing.harness import scenarios, trial

TOYS = ("toy0", "toy1")
FOLDER = "bus/toy/devices"


class ToyDevice(NamedTuple):
    """A device that is there, on a PCI card."""

    name: str
    identity: str = ""
    inode: int | None = None
    card: str | None = None
    used_by: UsedBy | None = None
    phase: str | None = None
    stuck: str | None = None
    unread: str | None = None

    @property
    def kind(self) -> str:
        return "toy"


@attrs.frozen
class ToyHostdev:
    """A domain's wish for one."""

    name: str
    allow: frozenset[str] = frozenset()

    kind = "toy"

    def __str__(self) -> str:
        return self.name


class ToyBus(Bus):
    """Directories with a file `id`, and a link to the card that they are on."""

    kind = "toy"
    folder = FOLDER

    def devices(self, *, tolerant: bool = False) -> dict[str, Any]:
        with self.sysfs.directory(self.folder) as folder:
            names = folder.names() if folder else []
        return {name: device for name in names if (device := self.read(name)) is not None}

    def read(self, name: str) -> Any:
        path = self.path(name)
        inode = self.sysfs.inode(path)
        if inode is None:
            return None
        identity = self.sysfs.read(f"{path}/id") or ""
        return ToyDevice(name, identity, inode, self.sysfs.link(f"{path}/card"))

    def absent(self, name: str) -> Any:
        return ToyDevice(name)

    def parse(self, text: str) -> str | None:
        return text if is_path_part(text) and text.startswith("toy") else None

    def place(self, device: ToyDevice) -> dict[str, Any]:
        return {"controller": device.card}


class ToyHost(SimulatedHost):
    """A simulated machine with toys, all on one card."""

    @cached_property
    def buses(self) -> Buses:
        buses = Buses(self.sysfs)
        buses.add(ToyBus(self.sysfs))
        return buses

    @property
    def toys(self) -> Path:
        return Path(self.sysfs.path(FOLDER))

    def plug_in_toys(self) -> None:
        add_card(self, NIC, "e1000e", 1)
        for name in TOYS:
            self._make(self.toys / name, f"first {name}")

    def pull_out(self, name: str) -> None:
        (self.toys / name).rename(self.toys.parent / f"{name} that was there")

    def exchange(self, name: str) -> None:
        fresh = self.toys.parent / f"{name} to come"
        self._make(fresh, f"second {name}")
        self.pull_out(name)
        fresh.rename(self.toys / name)

    def _make(self, path: Path, identity: str) -> None:
        path.mkdir(parents=True)
        (path / "id").write_text(f"{identity}\n")
        (path / "card").symlink_to(Path("../../../pci/devices") / NIC)


class ToyDriver(LocalHostdevDriver):
    """A hypervisor that takes toys, too."""

    name = "toys"
    uri_schemes = ("toys",)
    stubs = ("vfio-pci",)

    def arguments(self, device: Any, node: str | None) -> Sequence[str]:
        return "--toy", device.name


class ToyContract(ContractBase):
    """Machines with toys, and their hypervisor."""

    driver = ToyDriver

    def make_host(self, path: Path) -> SimulatedHost:
        host = super().make_host(path)
        toys = ToyHost.open(host.root)
        assert isinstance(toys, ToyHost)
        return toys


def _make_machine(host: SimulatedHost) -> SimulatedHost:
    assert isinstance(host, ToyHost)
    host.plug_in_toys()
    return host


def _lend(conn: Connection) -> object:
    return conn.prepare_hostdevs(Domain("vm1", [ToyHostdev(name) for name in TOYS]))  # type: ignore[list-item]


def _give_back(conn: Connection) -> object:
    return conn.reattach_hostdevs("vm1")


def _nothing(conn: Connection) -> None:
    del conn


def set_up() -> None:
    """Give the harness, in a job's own process, calls for toys and a machine that has some."""
    trial.make_machine = _make_machine
    scenarios.SCENARIOS |= {
        "prepare toys": scenarios.Scenario(_nothing, _lend, writes_nothing=True),
        "reattach toys": scenarios.Scenario(
            _lend, _give_back, goes_home=True, goes_on=True, writes_nothing=True
        ),
    }
