"""The base of every part of the contract: a host, a registry, a connection."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hostdev_core import (
    Connection,
    HostdevDriver,
    LocalHostdevDriver,
    PCIDevice,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.places import add_stubs, wants_dom0

NIC = "0000:01:00.0"
DISK = "0000:02:00.0"
GPU = "0000:03:00.0"
SOUND = "0000:03:00.1"


class Plugin:
    """A plugin that brings one driver."""

    def __init__(self, row: HostdevDriver) -> None:
        self.row = row

    @hookimpl
    def hostdev_drivers(self) -> Sequence[HostdevDriver]:
        """The row."""
        return [self.row]


class ContractBase:
    """The attributes that a subclass sets, and the fixtures and helpers of all parts."""

    driver: ClassVar[type[LocalHostdevDriver]]
    uri: ClassVar[str] = ""
    dom0: ClassVar[bool | None] = None

    @property
    def stub(self) -> str:
        """A stub driver that the driver accepts."""
        return self.driver.stubs[0]

    def make_host(self, path: Path) -> SimulatedHost:
        """An empty machine in a directory that is not there yet; its kernel has the stub drivers."""
        dom0 = wants_dom0(self.driver) if self.dom0 is None else self.dom0
        host = SimulatedHost.create(path, dom0=dom0)
        add_stubs(host, self.driver)
        return host

    def make_registry(self, *plugins: object) -> Registry:
        """The driver, a neighbour under `other://`, and these plugins."""
        registry = Registry()
        registry.register(Plugin(self.driver()), name=self.driver.name)
        registry.register(Plugin(self._neighbour()), name="other")
        for plugin in plugins:
            registry.register(plugin)
        return registry

    def _neighbour(self) -> HostdevDriver:
        class Other(LocalHostdevDriver):
            name = "other"
            uri_schemes = ("other",)
            stubs = self.driver.stubs
            stub_modules = self.driver.stub_modules
            needs_iommu = self.driver.needs_iommu

        return Other()

    def connect(
        self, host: SimulatedHost, registry: Registry | None = None, **options: Any
    ) -> Connection:
        """A connection of the driver to this host."""
        registry = registry or self.make_registry()
        uri = self.uri.replace("{root}", host.root) or f"{self.driver.uri_schemes[0]}:///system"
        if self.driver().host_for(uri) is None:
            options["host"] = host
        return open_connection(uri, registry=registry, **options)

    def connect_other(self, host: SimulatedHost) -> Connection:
        """A connection of another driver to the same host."""
        return open_connection("other:///system", host=host, registry=self.make_registry())

    @pytest.fixture
    def host(self, tmp_path: Path) -> SimulatedHost:
        """A machine with a network card, a disk, and a GPU and its sound card in one group."""
        host = self.make_host(tmp_path / "host")
        add_card(host, NIC, "e1000e", 1)
        add_card(host, DISK, "nvme", 2, id="144d:a808", class_="010802")
        add_card(host, GPU, "nouveau", 3, id="10de:2204", class_="030000")
        add_card(host, SOUND, "snd_hda_intel", 3, id="10de:1aef", class_="040300")
        return host

    @pytest.fixture
    def conn(self, host: SimulatedHost) -> Iterator[Connection]:
        """An open connection to it."""
        with self.connect(host) as conn:
            yield conn

    def need_groups(self, host: SimulatedHost) -> None:
        """Skip a test about IOMMU groups where the driver says that it does without them."""
        if not host.has_iommu:
            assert not self.driver.needs_iommu, "needs_iommu = True, but make_host makes no groups"
            pytest.skip("this driver needs no IOMMU groups, and this host has none")

    def need_usb(self) -> None:
        """Skip a test about USB devices for a driver that takes none."""
        if not self.driver.takes_usb:
            pytest.skip("this driver takes no USB devices")

    def is_lent(self, host: SimulatedHost, device: object) -> bool:
        """Whether a device is on a driver that can be handed to a guest."""
        assert isinstance(device, PCIDevice)
        driver = driver_of(host, device.name)
        return driver is not None and self.driver().accepts_stub(driver)


def add_card(
    host: SimulatedHost, address: str, kernel_driver: str | None, group: int, **more: Any
) -> str:
    """Plug in a card; its address."""
    return str(host.add_pci(address, kernel_driver=kernel_driver, iommu_group=group, **more))


def driver_of(host: SimulatedHost, address: str) -> str | None:
    """The kernel driver that a device is on."""
    found = host.snapshot()[address]["kernel_driver"]
    assert found is None or isinstance(found, str)
    return found


def own_files(host: SimulatedHost) -> dict[str, bytes]:
    """Read the files of a machine that are neither the kernel's nor the ledger's."""
    root, ledger = Path(host.root), Path(host.state_dir)
    folders = (
        each for each in root.iterdir() if each.name not in {"sys", "dev", "proc", ".kernel"}
    )
    return {
        str(file.relative_to(root)): file.read_bytes()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and not file.is_relative_to(ledger)
    }


def names(devices: Sequence[Any]) -> list[str]:
    """How a person calls them."""
    return [device.name for device in devices]


class Untouched:
    """Asserts that a block changes neither the kernel nor the ledger."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._before = self._now()

    def _now(self) -> dict[str, object]:
        records = {"/".join(record.key): record for record in self._host.ledger.records()}
        return {**self._host.snapshot(), **records}

    def __enter__(self) -> None:
        self._before = self._now()

    def __exit__(self, *exc: object) -> None:
        before, now = self._before, self._now()
        changed = {
            name: (before.get(name), now.get(name))
            for name in {*before, *now}
            if before.get(name) != now.get(name)
        }
        assert not changed, f"before and now: {changed}"
