"""Which driver a URI opens, and what it means when none does."""

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

import hostdev_libxl
import hostdev_qemu
import hostdev_test
from hostdev_core import (
    Connection,
    Deadlines,
    Domain,
    Host,
    InputError,
    InvalidURIError,
    LocalHostdevDriver,
    NoDriverError,
    OpenError,
    OpenResult,
    Registry,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC, Brings


class Row(LocalHostdevDriver):
    name = "session"
    uri_schemes = ("kvm",)
    stubs = ("vfio-pci",)
    path: ClassVar[str] = "/session"
    closed: ClassVar[list[str]] = []

    def open_backend(self, conn: Connection) -> OpenResult:
        if conn.uri.endswith("/broken"):
            raise ZeroDivisionError("oops")
        if conn.uri.endswith("/refused"):
            raise OpenError("no socket", driver=self.name, uri=conn.uri)
        conn.hostdev_private_data = self.name
        return OpenResult.SUCCESS if conn.uri.endswith(self.path) else OpenResult.DECLINED

    def close_backend(self, conn: Connection) -> None:
        self.closed.append(conn.uri)


class SystemRow(Row):
    name = "system"
    path = "/system"


@pytest.fixture
def all_drivers() -> Registry:
    registry = Registry()
    for name, plugin in (("libxl", hostdev_libxl), ("qemu", hostdev_qemu), ("test", hostdev_test)):
        registry.register(plugin, name=name)
    registry.register(Brings(Row(), SystemRow()), name="kvm")
    return registry


def test_declined_goes_on_to_the_next_row(host: SimulatedHost, all_drivers: Registry) -> None:
    with open_connection("kvm:///system", host=host, registry=all_drivers) as conn:
        assert conn.hostdev_driver is not None
        assert conn.hostdev_driver.name == "system"
        assert conn.hostdev_private_data == "system"
    assert Row.closed.pop() == "kvm:///system"
    assert Row.closed == []


def test_all_decline(host: SimulatedHost, all_drivers: Registry) -> None:
    with pytest.raises(NoDriverError, match="kvm:///elsewhere"):
        open_connection("kvm:///elsewhere", host=host, registry=all_drivers)


def test_an_exception_fails_the_open(host: SimulatedHost, all_drivers: Registry) -> None:
    with pytest.raises(OpenError) as raised:
        open_connection("kvm:///broken", host=host, registry=all_drivers)
    assert (raised.value.driver, raised.value.uri) == ("session", "kvm:///broken")
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    with pytest.raises(OpenError, match="no socket"):
        open_connection("kvm:///refused", host=host, registry=all_drivers)


def test_libxl_outside_a_dom0(host: SimulatedHost, all_drivers: Registry) -> None:
    with pytest.raises(OpenError, match="dom0"):
        open_connection("xen:///system", host=host, registry=all_drivers)


def test_libxl_manages_the_whole_machine_alone(tmp_path: Path, all_drivers: Registry) -> None:
    dom0 = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    for uri in ("xen:///session", "xen://host/system"):
        with pytest.raises(NoDriverError, match="wanted xen:///system"):
            open_connection(uri, host=dom0, registry=all_drivers)


def test_a_connection_shows_its_uri_and_its_driver(
    host: SimulatedHost, all_drivers: Registry
) -> None:
    with open_connection("qemu:///system", host=host, registry=all_drivers) as conn:
        assert repr(conn) == "<Connection qemu:///system (qemu)>"
    assert repr(conn) == "<Connection qemu:///system (closed)>"


def test_an_unknown_scheme_lists_the_known_ones(host: SimulatedHost, all_drivers: Registry) -> None:
    with pytest.raises(NoDriverError) as raised:
        open_connection("vbox:///session", host=host, registry=all_drivers)
    for scheme in ("xen", "qemu", "test", "kvm"):
        assert scheme in str(raised.value)


@pytest.mark.parametrize("uri", ["qemu", "qemu:", "//system", "qemu:/system", "q\nemu:///s", "["])
def test_no_uri_at_all(host: SimulatedHost, all_drivers: Registry, uri: str) -> None:
    with pytest.raises(InvalidURIError):
        open_connection(uri, host=host, registry=all_drivers)


def test_a_scheme_is_read_as_rfc_3986_says(host: SimulatedHost, all_drivers: Registry) -> None:
    with open_connection("QEMU:///system", host=host, registry=all_drivers) as conn:
        assert conn.hostdev_driver is not None
        assert conn.hostdev_driver.name == "qemu"


def test_the_default_uri_is_of_the_environment(
    host: SimulatedHost, all_drivers: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTDEV_DEFAULT_URI", "kvm:///session")
    with open_connection(host=host, registry=all_drivers) as conn:
        assert conn.uri == "kvm:///session"


@pytest.mark.parametrize(
    ("uri", "error"),
    [("kvm", InvalidURIError), ("http://[::1", InvalidURIError), ("kvn:///", NoDriverError)],
)
def test_a_default_uri_that_leads_nowhere_is_named(
    host: SimulatedHost,
    all_drivers: Registry,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    error: type[Exception],
) -> None:
    monkeypatch.setenv("HOSTDEV_DEFAULT_URI", uri)
    with pytest.raises(error, match=re.escape(f"HOSTDEV_DEFAULT_URI={uri!r}")):
        open_connection(host=host, registry=all_drivers)


def test_the_default_uri_is_of_the_first_row_that_offers_one(
    host: SimulatedHost,
    all_drivers: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOSTDEV_DEFAULT_URI", raising=False)
    with open_connection(host=host, registry=all_drivers) as conn:
        assert conn.uri == "qemu:///system"
    dom0 = SimulatedHost.create(tmp_path / "dom0", dom0=True)
    with open_connection(host=dom0, registry=all_drivers) as conn:
        assert conn.uri == "xen:///system"
    with pytest.raises(NoDriverError, match="HOSTDEV_DEFAULT_URI"):
        open_connection(host=host, registry=Registry())


def test_a_uri_that_brings_its_host_takes_no_other(
    host: SimulatedHost, all_drivers: Registry
) -> None:
    with pytest.raises(InputError, match="brings its own host"):
        open_connection("test:///default", host=host, registry=all_drivers)


def test_the_default_simulated_host_is_made_and_removed(all_drivers: Registry) -> None:
    with open_connection("test:///default", registry=all_drivers) as conn:
        root = Path(conn.host.root)
        before = conn.host.snapshot() if isinstance(conn.host, SimulatedHost) else None
        conn.prepare_hostdevs(Domain("vm1", ["01:00.0", "04:00.0", "1-3"]))
        conn.reattach_hostdevs("vm1")
        assert isinstance(conn.host, SimulatedHost)
        assert conn.host.snapshot() == before
    assert not root.exists()


def test_a_lasting_simulated_host(host: SimulatedHost, all_drivers: Registry) -> None:
    with open_connection(f"test://{host.root}", registry=all_drivers) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    with open_connection(f"test://{host.root}", registry=all_drivers) as conn:
        assert [device.name for device in conn.get_active_pci_hostdev_list()] == [NIC]
        conn.reattach_hostdevs("vm1")


@pytest.mark.parametrize("uri", ["test:///nowhere/at/all", "test:///", "test://host/default"])
def test_a_simulated_host_that_is_not_there(all_drivers: Registry, uri: str) -> None:
    with pytest.raises(InputError):
        open_connection(uri, registry=all_drivers)


def test_a_host_without_anything(tmp_path: Path, all_drivers: Registry) -> None:
    empty = Host(str(tmp_path))
    with open_connection("qemu:///system", host=empty, registry=all_drivers) as conn:
        assert conn.list_devices() == ()
        assert conn.get_active_pci_hostdev_list() == ()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("seconds", [0, -1, math.nan, "x", None, True])
def test_a_deadline_is_a_number_of_seconds(host: SimulatedHost, seconds: Any) -> None:
    """A text came up between the unbind and the bind; with NaN a call waits for ever, and busily."""
    for name in Deadlines._fields:
        deadlines = Deadlines(**{name: seconds})
        with pytest.raises(InputError, match=f"deadline {name}="):
            open_connection("qemu:///system", host=host, deadlines=deadlines)
        with pytest.raises(InputError, match=f"deadline {name}="):
            SimulatedHost.open(host.root, deadlines=deadlines)
    assert host.deadlines == Deadlines()


def test_deadlines_are_named(host: SimulatedHost) -> None:
    thirty: Any = 30
    with pytest.raises(InputError, match="wanted Deadlines"):
        open_connection("qemu:///system", host=host, deadlines=thirty)
