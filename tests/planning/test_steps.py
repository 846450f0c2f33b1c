"""Steps to the stub and home, over a tiny model of one device."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hostdev_core import StateError, UsedBy
from hostdev_core.model.plan import (
    BackendStep,
    DevicePlan,
    Plan,
    Step,
    UndoBackend,
    steps_from_json,
    steps_to_json,
)
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.planning.steps import steps_back, steps_to_stub

ADDRESS = "0000:01:00.0"
STUB = "vfio-pci"
drivers = st.sampled_from([None, "e1000e", "igb", STUB])
overrides = st.sampled_from([None, "e1000e", "igb", "uio", STUB])
founds = st.builds(Found, drivers, overrides, st.sampled_from(["on", "auto"]))
texts = st.text(st.characters(codec="ascii"), max_size=6)


class Model:
    """A device that obeys as the kernel does."""

    def __init__(self, found: Found) -> None:
        self.driver, self.override = found.kernel_driver, found.driver_override
        self.power = found.power_control

    @property
    def state(self) -> Found:
        return Found(self.driver, self.override)

    def obey(self, step: Step | BackendStep | UndoBackend) -> None:
        if not isinstance(step, Step):
            return
        if step.action == "override":
            assert self.override == step.former, "the undo would put back something else"
            self.override = step.value
        elif step.action == "unbind":
            assert self.driver == step.value
            self.driver = None
        elif step.action == "bind":
            assert self.driver is None
            assert self.override == step.value, "another driver could win the race"
            self.driver = step.value
        elif step.action == "power":
            self.power = step.value


def record_of(found: Found) -> Record:
    return Record("pci", ADDRESS, Phase.PREPARING, "qemu", stub=STUB, found=found)


@given(founds)
def test_the_steps_lead_to_the_stub(found: Found) -> None:
    model = Model(found)
    for step in steps_to_stub(ADDRESS, found, STUB):
        model.obey(step)
    assert model.driver == STUB


@given(founds, st.data())
def test_the_way_home_from_every_point_of_the_way_out(found: Found, data: st.DataObject) -> None:
    model = Model(found)
    steps = steps_to_stub(ADDRESS, found, STUB)
    for step in steps[: data.draw(st.integers(0, len(steps)))]:
        model.obey(step)
    check_home(model, found)


@given(founds, st.data())
def test_the_way_home_can_be_begun_again_from_every_point(
    found: Found, data: st.DataObject
) -> None:
    model = Model(found)
    for step in steps_to_stub(ADDRESS, found, STUB):
        model.obey(step)
    homeward = steps_back(record_of(found), model.state, ())
    for home_step in homeward[: data.draw(st.integers(0, len(homeward)))]:
        model.obey(home_step)
    check_home(model, found)


@given(founds, drivers, overrides)
def test_the_way_home_from_any_state_that_is_recognised(
    found: Found, driver: str | None, override: str | None
) -> None:
    assume(driver in {STUB, found.kernel_driver, None})
    assume(override in {STUB, found.kernel_driver, found.driver_override, None})
    model = Model(found)
    model.driver, model.override = driver, override
    check_home(model, found)


def check_home(model: Model, found: Found) -> None:
    for step in steps_back(record_of(found), model.state, ()):
        model.obey(step)
    assert (model.driver, model.override) == (found.kernel_driver, found.driver_override)
    assert model.power == found.power_control
    assert [
        step
        for step in steps_back(record_of(found), model.state, ())
        if not isinstance(step, Step) or step.action != "power"
    ] == []


@given(founds, drivers, overrides)
def test_what_is_not_recognised_is_not_touched(
    found: Found, driver: str | None, override: str | None
) -> None:
    strange_driver = driver not in {STUB, found.kernel_driver, None}
    strange_override = override not in {STUB, found.kernel_driver, found.driver_override, None}
    assume(strange_driver or strange_override)
    with pytest.raises(StateError, match="--as-is"):
        steps_back(record_of(found), Found(driver, override), ())


def test_backend_steps_are_undone_in_reverse_between_unbind_and_bind() -> None:
    first, second = BackendStep("slot", ADDRESS), BackendStep("path", ADDRESS, ("x",))
    found = Found("e1000e")
    steps = steps_back(record_of(found), Found(STUB, STUB), [first, second])
    words = [step.action if isinstance(step, Step) else step.step.name for step in steps]
    assert words == ["override", "unbind", "path", "slot", "bind", "override"]


def test_a_module_that_is_gone_is_loaded_first() -> None:
    found = Found("e1000e", module="e1000e_module")
    steps = steps_back(record_of(found), Found(STUB, STUB), (), driver_loaded=False)
    assert [str(step) for step in steps] == [
        "load module e1000e_module",
        f"set driver_override of {ADDRESS} to e1000e",
        f"unbind {ADDRESS} from {STUB}",
        f"bind {ADDRESS} to e1000e",
        f"set driver_override of {ADDRESS} to none",
    ]


optional = st.none() | texts
records = st.builds(
    Record,
    st.sampled_from(["pci", "usb"]),
    texts,
    st.sampled_from(Phase),
    texts,
    op=optional,
    owner=st.none() | st.builds(UsedBy, texts, texts, texts, optional),
    home=st.sampled_from(["host", "inactive"]),
    listed=st.booleans(),
    handed=st.booleans(),
    confirmed=st.booleans(),
    stub=optional,
    found=st.builds(Found, optional, optional, optional, optional),
    modalias=texts,
    revision=optional,
    inode=st.none() | st.integers(0, 2**63 - 1),
    group=st.none() | st.integers(0, 99),
    physfn=optional,
    controller=optional,
    usb=texts,
    allowed=texts,
    since=st.floats(0, 1e12),
    stuck=optional,
)
steps = st.builds(
    Step,
    st.sampled_from(["load", "override", "unbind", "bind", "reset", "power"]),
    texts,
    optional,
    optional,
) | st.builds(BackendStep, texts, texts, st.lists(texts).map(tuple))
plans = st.builds(
    Plan,
    st.none() | st.builds(UsedBy, texts, texts, texts, optional),
    st.lists(
        st.builds(DevicePlan, records, st.lists(steps, max_size=3).map(tuple)), max_size=2
    ).map(tuple),
    st.lists(records, max_size=1).map(tuple),
    st.lists(records, max_size=1).map(tuple),
    st.lists(texts).map(tuple),
    st.lists(texts).map(tuple),
)


@given(records)
def test_a_record_survives_its_row(record: Record) -> None:
    again = Record.from_row(record.to_row())
    assert again == record
    assert isinstance(again.phase, Phase)
    assert isinstance(again.found, Found)


@given(plans)
def test_a_plan_survives_json(plan: Plan) -> None:
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert [type(step) for device in again.devices for step in device.steps] == [
        type(step) for device in plan.devices for step in device.steps
    ]


@given(st.lists(st.builds(BackendStep, texts, texts, st.lists(texts).map(tuple))))
def test_backend_steps_survive_the_ledger(given_steps: list[BackendStep]) -> None:
    assert steps_from_json(steps_to_json(given_steps)) == tuple(given_steps)


@given(steps)
def test_every_step_has_words(step: Step | BackendStep) -> None:
    assert str(step)
    assert step.undo
