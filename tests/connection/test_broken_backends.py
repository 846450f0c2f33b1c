"""Backends that are broken: the contract finds each, and a call names the method and what it answered."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    Assignment,
    BackendStep,
    Connection,
    Domain,
    Host,
    HostdevDriver,
    LocalHostdevDriver,
    OpenResult,
    PCIDevice,
    Plan,
    PluginError,
    PrepareFlags,
    ReattachError,
    Registry,
    USBDevice,
)
from hostdev_core.model.plan import steps_from_json
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing import DriverContract
from hostdev_core.testing.contract_parts.base import Plugin
from tests.sample import NIC, connect_driver

pytestmark = pytest.mark.sample


class Backend(LocalHostdevDriver):
    """Nothing is wrong with it."""

    name = "mine"
    uri_schemes = ("mine",)
    stubs = ("vfio-pci",)

    def arguments(self, device: PCIDevice | USBDevice, node: str | None) -> Sequence[str]:
        return ("--device", device.name)


class WithoutRunStep(Backend):
    def extra_steps(self, host: Host, device: PCIDevice) -> Sequence[BackendStep]:
        return [BackendStep("tell", device.name)]


class WithoutUndoStep(WithoutRunStep):
    def run_step(self, host: Host, step: BackendStep) -> None:
        Path(host.path("run/told")).touch()


class MisspeltMethod(LocalHostdevDriver):
    name = "mine"
    uri_schemes = ("mine",)
    stubs = ("vfio-pci",)

    def argument(self, device: PCIDevice | USBDevice, node: str | None) -> Sequence[str]:
        return ("--device", device.name)


class MisspeltAttribute(Backend):
    needs_iomu = False


class OtherArguments(Backend):
    def forget_step(self, step: BackendStep) -> None:  # type: ignore[override]
        """It is called with the host, too."""


class AnswersFalse(Backend):
    def check_device(self, host: Host, device: PCIDevice) -> bool:  # type: ignore[override]
        return False


class StepAnswersFalse(WithoutUndoStep):
    def run_step(self, host: Host, step: BackendStep) -> bool:  # type: ignore[override]
        return False

    def undo_step(self, host: Host, step: BackendStep) -> None:
        """It was never done."""


class KeepsState(Backend):
    """What it did it knows by itself alone."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def extra_steps(self, host: Host, device: PCIDevice) -> Sequence[BackendStep]:
        return [BackendStep("tell", device.name)]

    def run_step(self, host: Host, step: BackendStep) -> None:
        self.told.add(step.device)
        folder = Path(host.path("run/mine"))
        folder.mkdir(exist_ok=True)
        (folder / step.device).touch()

    def undo_step(self, host: Host, step: BackendStep) -> None:
        if step.device in self.told:
            Path(host.path(f"run/mine/{step.device}")).unlink(missing_ok=True)


class UndoesAll(KeepsState):
    def undo_step(self, host: Host, step: BackendStep) -> None:
        for file in Path(host.path("run/mine")).glob("*"):
            file.unlink()


class HandsOverOne(Backend):
    def domain_arguments(self, assignments: Sequence[Assignment]) -> Sequence[str]:
        return [word for each in assignments for word in each.arguments][:2]


class OtherStepsEachTime(Backend):
    """Tells of what it does and undoes."""

    def __init__(self) -> None:
        self.done: list[BackendStep] = []
        self.undone: list[BackendStep] = []

    def extra_steps(self, host: Host, device: PCIDevice) -> Sequence[BackendStep]:
        return [BackendStep("tell", device.name, (os.urandom(8).hex(),))]

    def run_step(self, host: Host, step: BackendStep) -> None:
        self.done.append(step)

    def undo_step(self, host: Host, step: BackendStep) -> None:
        self.undone.append(step)


class PlanRaises(Backend):
    def plan(self, conn: Connection, domain: Domain, flags: PrepareFlags) -> Plan:
        raise RuntimeError("boom")


class ListsNothing(Backend):
    def list_devices(self, conn: Connection) -> tuple[PCIDevice | USBDevice, ...]:
        return None  # type: ignore[return-value]


class ForgotReturn(Backend):
    def accepts_stub(self, kernel_driver: str) -> bool:  # type: ignore[empty-body]
        """There is no `return`."""


class OpensWithTrue(Backend):
    def open_backend(self, conn: Connection) -> OpenResult:
        return True  # type: ignore[return-value]


def contract_of(kind: type[LocalHostdevDriver]) -> Any:
    """The contract's tests for a driver, to be called."""
    return type("TestMine", (DriverContract,), {"driver": kind})()


@pytest.mark.parametrize(
    ("kind", "test", "said"),
    [
        (WithoutRunStep, "test_its_own_steps_are_done_and_undone", "there is no run_step"),
        (WithoutUndoStep, "test_its_own_steps_are_done_and_undone", "has no undo_step"),
        (MisspeltMethod, "test_no_name_is_misspelt", "hostdev asks for arguments"),
        (MisspeltAttribute, "test_no_name_is_misspelt", "hostdev asks for needs_iommu"),
        (
            OtherArguments,
            "test_every_method_takes_what_it_is_called_with",
            r"called as forget_step\(host, step\)",
        ),
    ],
)
def test_the_contract_sees_it(kind: type[LocalHostdevDriver], test: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        getattr(contract_of(kind), test)()
    getattr(contract_of(Backend), test)()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (AnswersFalse(), "check_device answered False; wanted None, or NotAssignableError"),
        (StepAnswersFalse(), "run_step answered False"),
        (ForgotReturn(), "accepts_stub answered None; wanted True or False"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_call_names_it_and_changes_nothing(
    host: SimulatedHost, row: HostdevDriver, said: str
) -> None:
    before = host.snapshot()
    with connect_driver(row, host) as conn, pytest.raises(PluginError, match=said) as caught:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert caught.value.plugin == "mine"
    assert host.snapshot() == before
    assert host.ledger.records() == []


@pytest.mark.parametrize(
    ("kind", "test", "said"),
    [
        (KeepsState, "another_process_undoes_what_was_done_for_its_device_alone", "for its device"),
        (UndoesAll, "another_process_undoes_what_was_done_for_its_device_alone", "for its device"),
    ],
)
def test_the_contract_sees_what_is_left(
    tmp_path: Path, kind: type[LocalHostdevDriver], test: str, said: str
) -> None:
    for number, row in enumerate((kind, Backend)):
        contract = contract_of(row)
        host = contract.make_host(tmp_path / str(number))
        for address in ("0000:01:00.0", "0000:02:00.0"):
            host.add_pci(address, kernel_driver="e1000e")
        if row is kind:
            with pytest.raises(AssertionError, match=said):
                getattr(contract, f"test_{test}")(host)
        else:
            getattr(contract, f"test_{test}")(host)


def test_the_contract_sees_a_device_that_is_not_handed_over(tmp_path: Path) -> None:
    contract = contract_of(HandsOverOne)
    host = contract.make_host(tmp_path / "host")
    for address in ("0000:01:00.0", "0000:02:00.0"):
        host.add_pci(address, kernel_driver="e1000e")
    crowd = Domain("vm1", ["0000:01:00.0", "0000:02:00.0"])
    with contract.connect(host) as conn, pytest.raises(AssertionError, match="makes no difference"):
        contract.test_the_words_of_a_domain_hand_over_each_of_its_devices(conn, crowd)


def test_steps_that_are_others_each_time_are_undone_as_they_were_done(host: SimulatedHost) -> None:
    before, driver = host.snapshot(), OtherStepsEachTime()
    with connect_driver(driver, host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        (record,) = host.ledger.records()
        assert steps_from_json(record.steps) == tuple(driver.done)
        conn.reattach_hostdevs("vm1")
    assert len(driver.done) == 1
    assert driver.undone == driver.done
    assert host.snapshot() == before


def test_a_look_that_raises_or_answers_nothing_is_named(host: SimulatedHost) -> None:
    said = r"driver mine: plan raised RuntimeError\('boom'\)"
    with connect_driver(PlanRaises(), host) as conn, pytest.raises(PluginError, match=said):
        conn.plan(Domain("vm1", [NIC]))
    said = "list_devices answered None; wanted devices"
    with connect_driver(ListsNothing(), host) as conn, pytest.raises(PluginError, match=said):
        conn.list_devices()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("stub_modules", [("own-stub", "own")], "wanted a module by driver"),
        ("uris", "mine:///system", "wanted a tuple of URIs"),
        ("needs_iommu", "no", "wanted True or False"),
        ("tries_vfio", None, "wanted True or False"),
    ],
)
def test_an_attribute_of_another_form(name: str, value: object, said: str) -> None:
    row = type("Mine", (Backend,), {name: value})()
    with pytest.raises(PluginError, match=f"has {name} .*{said}"):
        Registry().register(Plugin(row), name="mine")


def test_a_connection_is_opened_by_an_open_result_alone(host: SimulatedHost) -> None:
    with pytest.raises(PluginError, match="open_backend answered True; wanted OpenResult"):
        connect_driver(OpensWithTrue(), host)


def test_an_undo_that_answers_false_leaves_the_device_stuck_with_the_reason(
    host: SimulatedHost,
) -> None:
    class UndoAnswersFalse(WithoutUndoStep):
        def undo_step(self, host: Host, step: BackendStep) -> bool:  # type: ignore[override]
            return False

    with connect_driver(UndoAnswersFalse(), host) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        with pytest.raises(ReattachError, match=NIC):
            conn.reattach_hostdevs("vm1")
    (record,) = host.ledger.records()
    assert record.stuck is not None
    assert "undo_step answered False" in record.stuck
