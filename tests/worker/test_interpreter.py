"""A new interpreter as the worker: what of the call and its plugins it gets, prints and logs."""

import logging
import os
import threading

import pytest

from hostdev_core import (
    Connection,
    Domain,
    HostdevDriver,
    PluginError,
    Registry,
    StateError,
    VetoError,
    hookimpl,
    open_connection,
)
from hostdev_core.hookspecs import Refusal
from hostdev_core.simulated import SimulatedHost
from hostdev_qemu import QemuDriver
from tests.sample import NIC


class Printing:
    """Prints as a plugin does."""

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        print("lent", "é")


def test_what_a_worker_prints_its_caller_does(
    registry: Registry, apart: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.register(Printing(), name="printing")
    apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert capsys.readouterr().out == "lent é\n"
    apart.reattach_hostdevs("vm1")


class Locked:
    """A plugin that cannot be packed: it has a lock, and keeps what it hears."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.heard: list[object] = []

    @hookimpl
    def hostdev_check(self, conn: Connection, domain: Domain | None) -> list[Refusal]:
        with self.lock:
            self.heard.append((os.getpid(), conn.uri))
        if domain is not None and domain.name == "refused":
            return [Refusal("mine", NIC, "it is not for this one")]
        return []

    @hookimpl
    def hostdev_prepare_failed(self, error: BaseException) -> None:
        with self.lock:
            self.heard.append(str(error))

    @hookimpl
    def hostdev_after_prepare(self, domain: Domain) -> None:
        if domain.name == "broken":
            raise ZeroDivisionError("by design")


def test_a_plugin_that_cannot_be_packed_is_asked_where_it_is(
    host: SimulatedHost, registry: Registry, apart: Connection
) -> None:
    before, plugin = host.snapshot(), Locked()
    registry.register(plugin, name="locked")
    apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert {*plugin.heard} == {(os.getpid(), "qemu:///system")}
    apart.reattach_hostdevs("vm1")
    with pytest.raises(VetoError) as refused:
        apart.prepare_hostdevs(Domain("refused", [NIC]))
    assert refused.value.refusals == (Refusal("mine", NIC, "it is not for this one"),)
    with pytest.raises(PluginError, match=r"locked: hostdev_after_prepare raised ZeroDiv.*design"):
        apart.prepare_hostdevs(Domain("broken", [NIC]))
    assert "by design" in str(plugin.heard[-1])
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_driver_that_cannot_be_brought_is_refused(host: SimulatedHost) -> None:
    class Local(QemuDriver):
        name = "local"
        uri_schemes = ("local",)

        @hookimpl
        def hostdev_drivers(self) -> list[HostdevDriver]:
            return [self]

    before, registry = host.snapshot(), Registry()
    registry.register(Local(), name="by-hand")
    with open_connection("local:///system", host=host, registry=registry, worker=True) as conn:
        with pytest.raises(StateError, match=r"'by-hand', which brings a driver.*worker=True"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.worker = False
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
    assert host.snapshot() == before


class Deaf:
    """Its words can be packed, and nobody can make anything of them elsewhere."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)

    @hookimpl
    def hostdev_check(self) -> None:
        """Nothing."""


def test_a_worker_that_cannot_make_the_call_changes_nothing(
    host: SimulatedHost, registry: Registry, apart: Connection
) -> None:
    before = host.snapshot()
    registry.register(Deaf(), name="deaf")
    with pytest.raises(StateError, match=r"cannot make the call: ValueError.*nothing was changed"):
        apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


class Talker:
    """Logs as a plugin does, by a logger of its own."""

    @hookimpl
    def hostdev_after_prepare(self) -> None:
        logging.getLogger("talker").info("lent by %s", "a worker")


def test_what_a_worker_logs_is_the_callers(
    registry: Registry, apart: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register(Talker(), name="talker")
    with caplog.at_level(logging.INFO, "talker"):
        apart.prepare_hostdevs(Domain("vm1", [NIC]))
    assert ("talker", logging.INFO, "lent by a worker") in caplog.record_tuples
    apart.reattach_hostdevs("vm1")
