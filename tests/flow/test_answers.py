"""Backends and plugins whose methods answer something else: said by name, and nothing is left."""

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
    Refusal,
    Registry,
    hookimpl,
    open_connection,
)
from hostdev_core.simulated import make_sample

NIC = "0000:01:00.0"
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
]


def driver(method: str, answer: object) -> type[LocalHostdevDriver]:
    members: dict[str, Any] = {"name": "mine", "uri_schemes": ("mine",), "stubs": ("vfio-pci",)}
    return type("Mine", (LocalHostdevDriver,), {**members, method: lambda *_: answer})


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


def test_why_a_backends_undo_failed(tmp_path: Path) -> None:
    row = driver("extra_steps", [BackendStep("attach", NIC)])

    def undo_step(*_: object) -> None:
        raise KeyError("no such thing")

    registry = registry_of(drivers=lambda: [type("Mine", (row,), {"undo_step": undo_step})()])
    host = make_sample(tmp_path / "host")
    with open_connection("mine:///system", host=host, registry=registry) as conn:
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
        with pytest.raises(ExceptionGroup):
            conn.reattach_hostdevs("vm1")
    (record,) = host.ledger.records()
    assert record.stuck == "KeyError: 'no such thing'"
