"""State drivers are driven, and nothing is changed through a door that is read-only or closed."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from hostdev_core import (
    Connection,
    Domain,
    Drift,
    Host,
    HostdevDriver,
    PluginError,
    ReadOnlyError,
    ReattachError,
    Registry,
    StateDriver,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.foreign_driver import MixedDriver
from tests.sample import NIC, make_registry

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


def test_a_signal_while_a_state_driver_works_is_the_users(
    host: SimulatedHost, registry: Registry
) -> None:
    plugin = Brings(fails={"initialize": KeyboardInterrupt()})
    registry.register(plugin, name="notes")
    with pytest.raises(KeyboardInterrupt):
        connect(host, registry)
    plugin.fails.clear()
    connect(host, registry).close()
    assert plugin.said == ["initialize", "initialize", "opened"]


def test_two_that_fail_are_both_told(host: SimulatedHost, registry: Registry) -> None:
    for name in ("one", "two"):
        registry.register(Brings(fails={"reload": ValueError(f"not {name}")}), name=name)
    with connect(host, registry) as conn, pytest.raises(PluginError) as raised:
        conn.reload()
    (note,) = raised.value.__notes__
    assert "plugin two: state driver Notes: reload raised ValueError('not two')" in str(
        raised.value
    )
    assert "plugin one: state driver Notes: reload raised ValueError('not one')" in note


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


class EmptyText:
    @hookimpl
    def hostdev_state_drivers(self) -> Any:
        return ""


class Nothing:
    @hookimpl
    def hostdev_state_drivers(self) -> Any:
        return None


def test_what_a_plugin_brings_is_checked(host: SimulatedHost, registry: Registry) -> None:
    registry.register(Nothing())
    connect(host, registry).close()
    for plugin, told in (
        (Raises(), "no database here"),
        (NoDriver(), "no StateDriver"),
        (EmptyText(), "answered the text ''; wanted a list"),
    ):
        fresh = make_registry()
        fresh.register(plugin, name="bad")
        with pytest.raises(PluginError, match=told):
            connect(host, fresh)
        connect(host, fresh, read_only=True).close()


def test_a_listing_knows_nothing_of_state_drivers() -> None:
    program = (
        "import sys; from hostdev_core.cli import main\n"
        "main(['list']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=99
    )
    assert "hostdev_core.registry.state_drivers" not in done.stderr.split()


@pytest.mark.quick_cases
@pytest.mark.parametrize("answer", [None, "gone", [LEFT, "gone"]])
def test_what_a_reload_answers_is_looked_at(
    host: SimulatedHost, registry: Registry, answer: Any
) -> None:
    class Answers(StateDriver):
        def initialize(self) -> None:
            """Nothing to make ready."""

        def reload(self) -> Any:
            return answer

        def cleanup(self) -> None:
            """Nothing to put away."""

    class BringsIt:
        @hookimpl
        def hostdev_state_drivers(self) -> Sequence[StateDriver]:
            return (Answers(),)

    registry.register(BringsIt(), name="answers")
    with (
        connect(host, registry) as conn,
        pytest.raises(PluginError, match="wanted a tuple of Drift"),
    ):
        conn.reload()
