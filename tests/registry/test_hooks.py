"""Every hook, by a plugin that uses it."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import pytest

from hostdev_core import (
    Domain,
    InputError,
    KernelError,
    PCIHostdev,
    PluginError,
    ReattachError,
    Refusal,
    VetoError,
    hookimpl,
)
from hostdev_core.simulated import SimulatedHost
from tests.helpers.plugins import Devices, Follows, Refuses
from tests.helpers.processes import OtherPlugin
from tests.sample import DISK, NIC, add_pair, connect

STUB_BIND = "bus/pci/drivers/vfio-pci/bind"


def wanted(address: str, *allow: str) -> PCIHostdev:
    return PCIHostdev(address=address, allow=frozenset(allow))  # type: ignore[arg-type]


def test_plugins_are_called_last_registered_first(host: SimulatedHost) -> None:
    told: list[str] = []
    with connect(host, Follows("one", told), Follows("two", told)) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
    hooks = ["opened", "before_prepare", "after_prepare"]
    hooks += ["before_reattach", "after_reattach", "closing"]
    assert told == [f"{name} {hook}" for hook in hooks for name in ("two", "one")]


def test_all_refusals_of_all_plugins_are_collected(host: SimulatedHost) -> None:
    before = host.snapshot()
    with connect(host, Refuses("root", (NIC,)), Refuses("mounted", (NIC, DISK))) as conn:
        for call in (conn.plan, conn.prepare_hostdevs):
            with pytest.raises(VetoError) as raised:
                call(Domain("vm1", [NIC, DISK]))
            rules = {(refusal.rule, refusal.device) for refusal in raised.value.refusals}
            assert rules == {("root", NIC), ("mounted", NIC), ("mounted", DISK)}
            for word in ("root", "mounted", NIC, DISK, "/dev/sda1"):
                assert word in str(raised.value)
        with pytest.raises(VetoError):
            conn.detach_device(NIC)
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_a_rule_is_passed_by_name_for_its_hostdev_only(host: SimulatedHost) -> None:
    with connect(host, Refuses("root", (NIC, DISK))) as conn:
        with pytest.raises(VetoError) as raised:
            conn.prepare_hostdevs(Domain("vm1", [wanted(NIC, "root"), DISK]))
        assert [refusal.device for refusal in raised.value.refusals] == [DISK]
        with pytest.raises(VetoError):
            conn.prepare_hostdevs(Domain("vm1", [wanted(NIC, "mounted")]))
        conn.prepare_hostdevs(Domain("vm1", [wanted(NIC, "root", "mounted")]))
        (record,) = host.ledger.records()
        assert record.allowed == "mounted root"
        conn.reattach_hostdevs("vm1")


def test_a_check_that_raises_refuses(host: SimulatedHost) -> None:
    class Raises:
        @hookimpl
        def hostdev_check(self, devices: Devices) -> Iterable[Refusal]:
            raise VetoError("not on a Sunday")

    class Breaks:
        @hookimpl
        def hostdev_check(self, devices: Devices) -> Iterable[Refusal]:
            raise ZeroDivisionError("oops")

    class Answers:
        @hookimpl
        def hostdev_check(self, devices: Devices) -> Any:
            return ["no"]

    for plugin, error in ((Raises(), VetoError), (Breaks(), PluginError), (Answers(), PluginError)):
        with connect(host, plugin) as conn, pytest.raises(error):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.ledger.records() == []
    assert {path for path, _ in host.writes()} <= {"modprobe"}


def test_a_reset_is_checked_too(host: SimulatedHost) -> None:
    refuses = Refuses("root", ())
    with connect(host, refuses) as conn:
        conn.detach_device(NIC)
        refuses.addresses = (NIC,)
        with pytest.raises(VetoError):
            conn.reset_device(NIC)
        assert not any(path.endswith("/reset") for path, _ in host.writes())
        conn.reattach_device(NIC)


def test_a_rule_is_passed_for_one_device_too(host: SimulatedHost) -> None:
    refuses = Refuses("root", (NIC,))
    with connect(host, refuses) as conn:
        for wrong in (["mounted"], ["root-too"]):
            with pytest.raises(VetoError):
                conn.detach_device(NIC, allow=wrong)
        conn.detach_device(NIC, allow=["root"])
        (record,) = host.ledger.records()
        assert (record.phase.value, record.allowed) == ("inactive", "root")
        with pytest.raises(VetoError):
            conn.reset_device(NIC, allow=["mounted"])
        conn.reset_device(NIC, allow=["root"])
        for call in (conn.detach_device, conn.reset_device):
            with pytest.raises(InputError, match="no collection"):
                call(NIC, allow="root")
        conn.reattach_device(NIC)
    assert host.ledger.records() == []


def test_before_prepare_that_raises_drops_the_claim_and_writes_nothing(
    host: SimulatedHost,
) -> None:
    told: list[str] = []
    first, second = Follows("one", told), Follows("two", told, ("before_prepare",))
    before = host.snapshot()
    with connect(host, first, second) as conn:
        told.clear()
        with pytest.raises(PluginError) as raised:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert told == ["two before_prepare", "two prepare_failed"]
    assert raised.value.hook == "hostdev_before_prepare"
    assert "Follows" in raised.value.plugin
    assert raised.value.plugin in str(raised.value)
    assert "two does not like it" in str(raised.value)
    assert [path for path, _ in host.writes() if path != "modprobe"] == []
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_after_prepare_that_raises_undoes_everything(host: SimulatedHost) -> None:
    told: list[str] = []
    one = Follows("one", told)
    two = Follows("two", told, ("after_prepare",), VetoError)
    before = host.snapshot()
    with connect(host, one, two) as conn:
        told.clear()
        with pytest.raises(VetoError, match="two does not like it"):
            conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        assert told == [
            "two before_prepare",
            "one before_prepare",
            "two after_prepare",
            "two prepare_failed",
            "one prepare_failed",
        ]
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_prepare_failed_once_for_each_and_its_own_error_is_a_note(host: SimulatedHost) -> None:
    told: list[str] = []
    host.on_write(STUB_BIND, errno=22)
    with connect(host, Follows("one", told, ("prepare_failed",)), Follows("two", told)) as conn:
        told.clear()
        with pytest.raises(KernelError) as raised:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert sorted(line for line in told if "failed" in line) == [
        "one prepare_failed",
        "two prepare_failed",
    ]
    assert any("one does not like it" in note for note in raised.value.__notes__)


def test_an_undo_that_cannot_be_done_hides_neither_the_cause_nor_the_hook(
    host: SimulatedHost,
) -> None:
    """The ledger fails just when it is needed; what is left is recovered when it is back."""
    told: list[str] = []

    def set_version(number: int) -> None:
        with closing(sqlite3.connect(host.ledger.path)) as ledger:
            ledger.execute(f"PRAGMA user_version = {number}")

    class Breaks:
        @hookimpl
        def hostdev_after_prepare(self) -> None:
            set_version(99)
            raise VetoError("not on a Sunday")

    before = host.snapshot()
    with connect(host, Breaks(), Follows("one", told)) as conn:
        with pytest.raises(VetoError, match="not on a Sunday") as raised:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert any("schema version 99" in note for note in raised.value.__notes__)
        assert told.count("one prepare_failed") == 1
        set_version(1)
        assert conn.recover() == (NIC,)
    assert host.snapshot() == before


def test_errors_at_reattach_are_collected_and_stop_nothing(host: SimulatedHost) -> None:
    told: list[str] = []
    both = ("before_reattach", "after_reattach")
    before = host.snapshot()
    with connect(host, Follows("one", told, both), Follows("two", told, both)) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC, DISK]))
        with pytest.raises(ReattachError) as raised:
            conn.reattach_hostdevs("vm1")
        assert len(raised.value.exceptions) == 4
        assert all(isinstance(error, PluginError) for error in raised.value.exceptions)
    assert host.snapshot() == before
    assert host.ledger.records() == []


def test_reattach_hooks_hear_of_a_waiting_member_when_it_goes(host: SimulatedHost) -> None:
    told: list[str] = []
    add_pair(host)
    with connect(host, Follows("one", told)) as conn:
        conn.prepare_hostdevs(Domain("vm1", ["03:00.0", "03:00.1"]))
        told.clear()
        conn.reattach_pci_hostdevs("vm1", [wanted("03:00.0")])
        assert "one after_reattach" not in told
        conn.reattach_hostdevs("vm1")
        assert told[-2:] == ["one before_reattach", "one after_reattach"]


def test_connection_opened_that_raises_leaves_nothing_open(host: SimulatedHost) -> None:
    told: list[str] = []
    with pytest.raises(PluginError, match="hostdev_connection_opened"):
        connect(host, Follows("one", told, ("opened",)))
    assert told == ["one opened"]


def test_connection_closing_that_raises_does_not_keep_it_open(host: SimulatedHost) -> None:
    conn = connect(host, Follows("one", [], ("closing",)))
    conn.close()
    assert conn.is_closed


def test_another_backends_plugin_does_not_hear(host: SimulatedHost) -> None:
    told: list[str] = []

    class Backend(Follows, OtherPlugin):
        pass

    with connect(host, Backend("other", told)) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        conn.reattach_hostdevs("vm1")
    assert told == []
