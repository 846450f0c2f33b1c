"""Plugins and drivers that are registered: conflicts, forms, hooks that are not known."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Connection,
    Domain,
    DriverConflictError,
    LocalHostdevDriver,
    PluginError,
    Registry,
    VetoError,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import with_installed
from tests.helpers.plugins import Devices, Refuses
from tests.helpers.processes import OtherPlugin
from tests.sample import NIC, connect, make_registry


def test_two_plugins_that_claim_one_scheme() -> None:
    class Row(LocalHostdevDriver):
        name = "kvm"
        uri_schemes = ("kvm", "qemu")
        stubs = ("vfio-pci",)

    class Brings:
        @hookimpl
        def hostdev_drivers(self) -> list[LocalHostdevDriver]:
            return [OtherPlugin().hostdev_drivers()[0], Row()]

    registry = make_registry()
    with pytest.raises(DriverConflictError) as raised:
        registry.register(Brings(), name="mine")
    assert "qemu" in str(raised.value)
    assert raised.value.plugin == "mine"
    assert [row.name for row in registry.driver_table] == ["qemu"]
    assert [*registry.plugins] == ["qemu"]


def test_a_driver_name_that_is_taken() -> None:
    registry = make_registry()
    registry.register(OtherPlugin(), name="other")
    with pytest.raises(DriverConflictError, match="other"):
        registry.register(OtherPlugin(), name="another")
    assert len(registry.driver_table) == 2


def test_the_same_plugin_twice_leaves_the_first_as_it_was(host: SimulatedHost) -> None:
    plugin = Refuses("root", (NIC,))
    registry = make_registry()
    registry.register(plugin, name="refuses")
    for name in ("refuses", "again"):
        with pytest.raises(PluginError):
            registry.register(plugin, name=name)
    with pytest.raises(PluginError):
        registry.register(Refuses("root", ()), name="refuses")
    conn = open_connection("qemu:///system", host=host, registry=registry)
    with conn, pytest.raises(VetoError):
        conn.plan(Domain("vm1", [NIC]))


class Misspelt:
    @hookimpl
    def hostdev_befor_prepare(self) -> None:
        """No such hook."""


class WrongArgument:
    @hookimpl
    def hostdev_before_prepare(self, device: object) -> None:
        """No such argument."""


class Wrapper:
    @hookimpl(wrapper=True)
    def hostdev_before_prepare(self) -> Any:
        return (yield)


class NoRows:
    @hookimpl
    def hostdev_drivers(self) -> Any:
        return ["qemu"]


class Raises:
    @hookimpl
    def hostdev_drivers(self) -> Any:
        raise ImportError("no libvirt here")


class TextForRows:
    @hookimpl
    def hostdev_drivers(self) -> Any:
        return ""


class Unmarked:
    def hostdev_before_prepare(self) -> None:
        """Without @hookimpl: pluggy does not see it."""


class Named:
    @hookimpl(specname="hostdev_check")
    def hostdev_before_prepare(self, device: object) -> None:
        """An argument that hostdev_check lacks."""


@pytest.mark.parametrize(
    "plugin",
    [
        Misspelt(),
        WrongArgument(),
        Wrapper(),
        NoRows(),
        TextForRows(),
        Unmarked(),
        Named(),
        Raises(),
    ],
)
def test_a_plugin_of_the_wrong_form_is_kept_out(host: SimulatedHost, plugin: object) -> None:
    registry = make_registry()
    with pytest.raises(PluginError, match="wrong"):
        registry.register(plugin, name="wrong")
    assert [*registry.plugins] == ["qemu"]
    assert len(registry.driver_table) == 1
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")


def test_a_signal_while_a_plugin_makes_its_drivers_is_the_users() -> None:
    class Stopped:
        @hookimpl
        def hostdev_drivers(self) -> Any:
            raise KeyboardInterrupt

    registry = make_registry()
    with pytest.raises(KeyboardInterrupt):
        registry.register(Stopped(), name="stopped")
    assert [*registry.plugins] == ["qemu"]
    assert len(registry.driver_table) == 1


class OfALaterHostdev:
    """Has hooks that this hostdev does not know, one of them a wrapper, and one that it knows."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl(optionalhook=True)
    def hostdev_before_migration(self, conn: Connection, target: str) -> None:
        raise AssertionError("nobody calls it")

    @hookimpl(optionalhook=True, wrapper=True)
    def hostdev_around(self) -> Any:
        return (yield)

    @hookimpl(optionalhook=True)
    def hostdev_after_prepare(self, devices: Devices) -> None:
        self.heard += [device.name for device in devices]


class HasAMethodOfThatName(Misspelt):
    hostdev_befor_prepare = None  # type: ignore[assignment]

    def hostdev_before_migration(self) -> None:
        """Its own affair: no hook of hostdev."""


def test_a_hook_that_need_not_be_known_is_no_error(host: SimulatedHost) -> None:
    later = OfALaterHostdev()
    with connect(host, later, HasAMethodOfThatName()) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
        with pytest.raises(PluginError, match="is no hook of hostdev"):
            conn.registry.register(Misspelt())
    assert later.heard == [NIC]


class OptionalWrapper:
    @hookimpl(optionalhook=True, wrapper=True)
    def hostdev_before_prepare(self) -> Any:
        return (yield)


class OptionalWrongArgument:
    @hookimpl(optionalhook=True)
    def hostdev_before_prepare(self, device: object) -> None:
        """A hook that is known is taken at its word."""


@pytest.mark.parametrize("plugin", [OptionalWrapper(), OptionalWrongArgument()])
def test_a_known_hook_is_checked_whatever_its_mark(plugin: object) -> None:
    with pytest.raises(PluginError, match="wrong"):
        Registry().register(plugin, name="wrong")


PROGRAM = """
from hostdev_core import NoDriverError, Registry, open_connection
registry = Registry.from_entry_points()
print([row.name for row in registry.driver_table])
print([(error.plugin, str(error)) for error in registry.load_errors])
try:
    open_connection("vbox:///session", registry=registry)
except NoDriverError as error:
    print(error)
"""


def test_an_installed_plugin_that_does_not_import_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "broken_plugin.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "good_plugin.py").write_text(
        "from hostdev_core import LocalHostdevDriver, hookimpl\n"
        "class Good(LocalHostdevDriver):\n"
        "    name = 'good'; uri_schemes = ('good',); stubs = ('vfio-pci',)\n"
        "@hookimpl\n"
        "def hostdev_drivers(): return [Good()]\n"
    )
    info = tmp_path / "abroad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abroad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hostdev]\nbroken = broken_plugin\ngood = good_plugin\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": with_installed(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rows, errors, refusal = answer.stdout.splitlines()
    assert rows == "['libxl', 'qemu', 'test', 'good']"
    for word in ("broken", "abroad", "no_such_module_at_all"):
        assert word in errors
        assert word in refusal
    for word in ("vbox", "libxl", "xen", "qemu", "test", "good"):
        assert word in refusal or word == "libxl"
