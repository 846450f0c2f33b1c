"""Backends and plugins whose methods answer something else: said by name, and nothing is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostdev_core import (
    BackendStep,
    DeviceInUseError,
    Domain,
    HostdevDriver,
    LocalHostdevDriver,
    PluginError,
    ReattachError,
    Refusal,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import make_sample
from tests.sample import NIC

ANSWERS: list[tuple[str, object]] = [
    ("extra_steps", BackendStep("attach", NIC)),
    ("extra_steps", [BackendStep("attach", NIC, (1,))]),
    ("extra_steps", [BackendStep("attach", NIC, "slot")]),
    ("extra_steps", [BackendStep(Path("attach"), NIC)]),
    ("extra_steps", ["attach"]),
    ("extra_steps", None),
    ("choose_stub", None),
    ("choose_stub", "../vfio-pci"),
    ("arguments", "--device"),
    ("arguments", ("--device", 1)),
    ("arguments", None),
    ("domain_arguments", "--device x"),
    ("domain_arguments", [("--device", "x")]),
    ("domain_arguments", None),
    ("holders", (7,)),
    ("node", 7),
]
# For those that a prepare asks of a device; run_step has a step to do.
ASKED = (
    "choose_stub", "accepts_stub", "check_device", "holders", "extra_steps", "run_step", "node",
    "arguments", "domain_arguments",
)  # fmt: skip


def driver(method: str, answer: object) -> type[LocalHostdevDriver]:
    return backend({method: lambda *_: answer})


def backend(methods: dict[str, Callable[..., object]]) -> type[LocalHostdevDriver]:
    members: dict[str, Any] = {"name": "mine", "uri_schemes": ("mine",), "stubs": ("vfio-pci",)}
    return type("Mine", (LocalHostdevDriver,), members | methods)


def fail(*_: object) -> object:
    raise KeyError("out of order")


def registry_of(**hooks: object) -> Registry:
    """A registry with one plugin, whose hooks answer the same each time."""
    members = {f"hostdev_{name}": staticmethod(hookimpl(it)) for name, it in hooks.items()}
    registry = Registry.from_entry_points()
    registry.register(type("Plugin", (), members)(), name="mine")
    return registry


@pytest.mark.parametrize(("method", "answer"), ANSWERS)
def test_a_backend_answers_something_else(tmp_path: Path, method: str, answer: object) -> None:
    host = make_sample(tmp_path / "host")
    before = host.snapshot()
    registry = registry_of(drivers=lambda: [driver(method, answer)()])
    with open_connection("mine:///system", host=host, registry=registry) as conn:
        with pytest.raises(PluginError, match=f"driver mine: {method} answered .*; wanted"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert host.ledger.records() == []
        assert host.snapshot() == before


@pytest.mark.parametrize("method", ASKED)
def test_a_backend_raises(tmp_path: Path, method: str) -> None:
    host = make_sample(tmp_path / "host")
    before = host.snapshot()
    steps: dict[str, Callable[..., object]] = {
        "extra_steps": lambda *_: [BackendStep("attach", NIC)]
    }
    registry = registry_of(drivers=lambda: [backend({**steps, method: fail})()])
    with open_connection("mine:///system", host=host, registry=registry) as conn:
        with pytest.raises(PluginError) as caught:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert str(caught.value) == f"driver mine: {method} raised KeyError('out of order')"
        assert (caught.value.plugin, caught.value.hook) == ("mine", method)
        assert host.ledger.records() == []
        assert host.snapshot() == before


def test_a_backend_raises_on_the_way_home(tmp_path: Path) -> None:
    host = make_sample(tmp_path / "host")
    before = host.snapshot()
    methods: dict[str, Callable[..., object]] = {
        "extra_steps": lambda *_: [BackendStep("attach", NIC)],
        "undo_step": fail,
    }
    registry = registry_of(drivers=lambda: [backend(methods)()])
    with open_connection("mine:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        with pytest.raises(ReattachError) as caught:
            conn.reattach_hostdevs("vm1")
        (error,) = caught.value.exceptions
        assert "driver mine: undo_step raised KeyError('out of order')" in str(error)
        (record,) = host.ledger.records()
        assert record.stuck is not None
        assert "undo_step raised" in record.stuck
    registry = registry_of(drivers=lambda: [backend({**methods, "undo_step": lambda *_: None})()])
    with open_connection("mine:///system", host=host, registry=registry) as conn:
        assert conn.recover() == (NIC,)
    assert host.snapshot() == before


def test_one_text_is_one_holder(tmp_path: Path) -> None:
    registry = registry_of(drivers=lambda: [driver("holders", "vm7")()])
    host = make_sample(tmp_path / "host")
    with open_connection("mine:///system", host=host, registry=registry) as conn:
        with pytest.raises(DeviceInUseError, match="held by vm7;") as caught:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert [*caught.value.holders] == ["vm7"]


def test_a_class_is_no_driver() -> None:
    row: type[HostdevDriver] = driver("node", None)
    with pytest.raises(PluginError, match=r"wanted an object of it: Mine\(\)"):
        registry_of(drivers=lambda: [row])


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (("kept", NIC, "why"), "wanted Refusal"),
        (Refusal("two words", NIC, "why"), "wanted one word"),
        (Refusal("kept", object(), "why"), "wanted its address"),
        (Refusal("kept", NIC, None), "wanted a text"),
        (Refusal("kept", NIC, "why", "evidence"), "wanted texts in a tuple"),
    ],
)
def test_a_refusal_of_another_form(tmp_path: Path, refusal: object, said: str) -> None:
    host = make_sample(tmp_path / "host")
    before = host.snapshot()
    registry = registry_of(check=lambda: [refusal])
    with open_connection("qemu:///system", host=host, registry=registry) as conn:
        with pytest.raises(PluginError, match=f"plugin mine: hostdev_check .*{said}"):
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert host.ledger.records() == []
        assert host.snapshot() == before
