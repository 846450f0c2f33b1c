"""State drivers are driven, and nothing is changed through a door that is read-only or closed."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import hostdev_qemu
from hostdev_core import (
    Assignment,
    Connection,
    ConnectionClosedError,
    Domain,
    Drift,
    Host,
    HostdevDriver,
    LocalHostdevDriver,
    OpenResult,
    PluginError,
    PrepareFlags,
    ReadOnlyError,
    ReattachError,
    Registry,
    StateDriver,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import Plugin, Untouched
from tests.sample import NIC

LEFT = Drift("pci", NIC, "gone", "says the plugin")


class Notes(StateDriver):
    """Writes down what is asked of it; raises where it is told to."""

    def __init__(self, host: Host, said: list[str]) -> None:
        self.root = host.root
        self.said = said
        self.fails: dict[str, BaseException] = {}

    def _say(self, what: str) -> None:
        self.said.append(what)
        if what in self.fails:
            raise self.fails[what]

    def initialize(self) -> None:
        self._say("initialize")

    def reload(self) -> tuple[Drift, ...]:
        self._say("reload")
        return (LEFT,)

    def cleanup(self) -> None:
        self._say("cleanup")


@attrs.define(eq=False)
class Brings:
    """A plugin with one state driver for each host."""

    said: list[str] = attrs.field(factory=list[str])
    made: list[Notes] = attrs.field(factory=list[Notes])
    fails: dict[str, BaseException] = attrs.field(factory=dict[str, BaseException])

    @hookimpl
    def hostdev_state_drivers(self, host: Host) -> Iterator[StateDriver]:
        self.made.append(Notes(host, self.said))
        self.made[-1].fails = self.fails
        yield self.made[-1]

    @hookimpl
    def hostdev_connection_opened(self) -> None:
        self.said.append("opened")


def connect(host: SimulatedHost, registry: Registry, **words: Any) -> Connection:
    return open_connection("qemu:///system", host=host, registry=registry, **words)


def test_it_is_made_ready_before_the_first_open_and_put_away_at_the_end(
    host: SimulatedHost, registry: Registry, tmp_path: Path
) -> None:
    plugin = Brings()
    registry.register(plugin, name="notes")
    other = SimulatedHost.create(tmp_path / "other")
    with registry:
        connect(host, registry, read_only=True).close()
        assert plugin.said == ["opened"]
        plugin.said.clear()
        for _ in range(2):
            connect(host, registry).close()
        connect(SimulatedHost.open(host.root), registry).close()
        assert plugin.said == ["initialize", "opened", "opened", "opened"]
        connect(other, registry).close()
        assert [made.root for made in plugin.made] == [host.root, other.root]
        assert registry.reload() == (LEFT, LEFT)
        assert registry.reload(other) == (LEFT,)
        plugin.said.clear()
    assert plugin.said == ["cleanup", "cleanup"]
    registry.close()
    assert plugin.said == ["cleanup", "cleanup"]
    assert registry.reload() == ()
    with connect(host, registry):
        assert plugin.said[2:] == ["initialize", "opened"]


def test_recovery_and_reload_tell_it(host: SimulatedHost, registry: Registry) -> None:
    plugin = Brings()
    registry.register(plugin, name="notes")
    for worker in False, True:
        with connect(host, registry, worker=worker) as conn:
            plugin.said.clear()
            assert conn.recover() == ()
            assert plugin.said == ["reload"]
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
            assert conn.reload() == (LEFT,)
            assert conn.reattach_hostdevs("vm1") == (NIC,)
    with connect(host, registry, read_only=True) as conn:
        assert conn.reload() == (LEFT,)


def test_the_ledger_is_made_at_the_first_change(host: SimulatedHost, registry: Registry) -> None:
    connect(host, registry, read_only=True).close()
    connect(host, registry).close()
    assert not Path(host.state_dir).exists()
    with connect(host, registry) as conn:
        conn.state.initialize()
    assert Path(host.state_dir, "state.db").exists()
    dead = Path(host.state_dir, "op", "0" * 32)
    dead.parent.mkdir(mode=0o700)
    dead.touch()
    registry.close()
    assert not dead.exists()


def test_a_registry_of_the_connections_own_is_put_away_with_it(host: SimulatedHost) -> None:
    conn = open_connection("qemu:///system", host=host)
    conn.state.initialize()
    dead = Path(host.state_dir, "op", "0" * 32)
    dead.parent.mkdir(mode=0o700)
    dead.touch()
    conn.close()
    assert not dead.exists()


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SystemExit(3), ReadOnlyError("mine")])
def test_what_it_raises_is_its_plugins(
    host: SimulatedHost, registry: Registry, error: BaseException
) -> None:
    plugin, after = Brings(fails={"initialize": error}), Brings()
    registry.register(after, name="after")
    registry.register(plugin, name="notes")
    for _ in range(2):
        with pytest.raises(PluginError, match="plugin notes: state driver Notes: initialize") as no:
            connect(host, registry)
        assert (no.value.plugin, no.value.hook) == ("notes", "hostdev_state_drivers")
    assert (plugin.said, after.said) == (["initialize"] * 2, [])
    plugin.fails.clear()
    with connect(host, registry) as conn:
        plugin.fails |= {"reload": error, "cleanup": error}
        after.said.clear()
        with pytest.raises(PluginError, match="Notes: reload"):
            conn.reload()
        with pytest.raises(ReattachError, match="a plugin failed") as raised:
            conn.recover()
        assert isinstance(raised.value.exceptions[0], PluginError)
    with pytest.raises(PluginError, match="Notes: cleanup"):
        registry.close()
    assert after.said == ["reload", "reload", "cleanup"]
    registry.close()


class OthersOwn(Brings):
    """Of a plugin that brings a driver, too."""

    @hookimpl
    def hostdev_drivers(self) -> list[HostdevDriver]:
        return [MixedDriver()]


def test_another_backends_state_is_its_own(host: SimulatedHost, registry: Registry) -> None:
    plugin = OthersOwn()
    registry.register(plugin)
    connect(host, registry).close()
    assert plugin.said == []
    open_connection("mixed:///", host=host, registry=registry).close()
    assert plugin.said == ["initialize", "opened"]
    registry.close()
    assert plugin.said[2:] == ["cleanup"]


class Raises:
    @hookimpl
    def hostdev_state_drivers(self) -> Sequence[StateDriver]:
        raise ImportError("no database here")


class NoDriver:
    @hookimpl
    def hostdev_state_drivers(self) -> Any:
        return ["state"]


class Nothing:
    @hookimpl
    def hostdev_state_drivers(self) -> Any:
        return None


def test_what_a_plugin_brings_is_checked(host: SimulatedHost, registry: Registry) -> None:
    registry.register(Nothing())
    connect(host, registry).close()
    for plugin, told in (Raises(), "no database here"), (NoDriver(), "no StateDriver"):
        fresh = Registry()
        fresh.register(hostdev_qemu, name="qemu")
        fresh.register(plugin, name="bad")
        with pytest.raises(PluginError, match=told):
            connect(host, fresh)
        connect(host, fresh, read_only=True).close()


class Foreign(HostdevDriver):
    """Not a LocalHostdevDriver: all of its members are its author's."""

    name = "foreign"
    uri_schemes = ("foreign",)
    done: list[str]

    def __init__(self) -> None:
        self.done = []

    def open(self, conn: Connection) -> OpenResult:
        return OpenResult.SUCCESS

    def close(self, conn: Connection) -> None:
        """Nothing to close."""

    def prepare_hostdevs(
        self, conn: Connection, domain: Domain, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        self.done.append("prepare")
        return ()

    def prepare_pci_hostdevs(
        self, conn: Connection, domain: Domain, hostdevs: Any, flags: PrepareFlags
    ) -> tuple[Assignment, ...]:
        return self.prepare_hostdevs(conn, domain, flags)

    prepare_usb_hostdevs = prepare_pci_hostdevs

    def reattach_hostdevs(self, conn: Connection, domain: Domain) -> tuple[str, ...]:
        self.done.append("reattach")
        return ("0000:01:00.0",)

    def reattach_pci_hostdevs(
        self, conn: Connection, domain: Domain, hostdevs: Any
    ) -> tuple[str, ...]:
        return self.reattach_hostdevs(conn, domain)

    reattach_usb_hostdevs = reattach_pci_hostdevs

    def _none(self, conn: Connection, domain: Domain | None = None) -> tuple[Any, ...]:
        return ()

    get_active_pci_hostdev_list = get_active_usb_hostdev_list = _none
    get_inactive_pci_hostdev_list = _none
    get_domain_active_pci_hostdev_list = get_domain_active_usb_hostdev_list = _none


class Quick:
    """A mixin: no driver itself."""

    def reset_device(self, conn: Connection, address: str, **words: Any) -> None:
        conn.host.sysfs.write(f"bus/pci/devices/{address}/reset", "1")


class MixedDriver(Quick, LocalHostdevDriver):  # type: ignore[misc]
    name = "mixed"
    uri_schemes = ("mixed",)
    stubs = ("vfio-pci",)


VM1 = Domain("vm1", [NIC])
CALLS: list[Callable[[Any, Connection], object]] = [
    lambda driver, conn: driver.prepare_hostdevs(conn, VM1, PrepareFlags.NONE),
    lambda driver, conn: driver.prepare_pci_hostdevs(conn, VM1, [NIC], PrepareFlags.NONE),
    lambda driver, conn: driver.prepare_usb_hostdevs(conn, VM1, [], PrepareFlags.NONE),
    lambda driver, conn: driver.reattach_hostdevs(conn, VM1),
    lambda driver, conn: driver.reattach_pci_hostdevs(conn, VM1, [NIC]),
    lambda driver, conn: driver.reattach_usb_hostdevs(conn, domain=VM1, hostdevs=[]),
    lambda driver, conn: driver.detach_device(conn, NIC),
    lambda driver, conn: driver.reattach_device(conn, NIC),
    lambda driver, conn: driver.reset_device(conn, NIC),
    lambda driver, conn: conn.state.initialize(),
    lambda driver, conn: conn.state.cleanup(),
]


@pytest.mark.parametrize("uri", ["qemu:///system", "foreign:///", "mixed:///"])
@pytest.mark.parametrize("closed", [False, True])
def test_nothing_is_changed_through_the_slot_of_such_a_connection(
    host: SimulatedHost, registry: Registry, uri: str, *, closed: bool
) -> None:
    foreign = Foreign()
    registry.register(Plugin(foreign))
    registry.register(Plugin(MixedDriver()))
    conn = open_connection(uri, host=host, registry=registry, read_only=not closed)
    driver = conn.hostdev_driver
    assert driver is not None
    assert driver in registry.driver_table
    if closed:
        conn.close()
    for call in CALLS:
        wanted = ConnectionClosedError if closed else ReadOnlyError
        with Untouched(host), pytest.raises(wanted):
            call(driver, conn)
    assert foreign.done == []
    if not closed:
        assert not Path(host.state_dir).exists()
        assert conn.state.active_pci == ()
        assert driver.get_active_pci_hostdev_list(conn) == ()


def test_a_foreign_driver_works_where_changes_may_be_made(
    host: SimulatedHost, registry: Registry
) -> None:
    foreign = Foreign()
    registry.register(Plugin(foreign))
    with open_connection("foreign:///", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(VM1)
        returned = conn.reattach_pci_hostdevs(VM1, [NIC, "1-1"])
        assert (returned, returned.waiting) == ((NIC,), ())
    assert foreign.done == ["prepare", "reattach"]


def test_a_listing_knows_nothing_of_state_drivers() -> None:
    program = (
        "import sys; from hostdev_core.cli import main\n"
        "main(['list']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=99
    )
    assert "hostdev_core.registry.state_drivers" not in done.stderr.split()
