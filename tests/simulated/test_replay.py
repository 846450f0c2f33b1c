"""A file that is to become a machine: a good one is one, a bad one is an error that says where."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hostdev_core import InputError
from hostdev_core.simulated import SimulatedHost
from tests.helpers.captures import replayed, scratch
from tests.sample import NIC

pytestmark = [pytest.mark.quick_cases, pytest.mark.sample]

# --- bad files

GOOD: dict[str, Any] = {
    "format": "hostdev-machine",
    "version": 1,
    "kernel": "6.1.0",
    "origin": "made by hand",
    "drivers": {"e1000e": {"module": "e1000e"}, "pcieport": {}, "igb": {"loaded": False, "module": "igb"}},
    "pci": {
        "0000:00:01.0": {"id": "8086:1901", "class": "060400", "kernel_driver": "pcieport"},
        NIC: {"id": "8086:10d3", "class": "020000", "parent": "0000:00:01.0", "kernel_driver": "e1000e"},
    },
    "usb": {"1-1": {"id": "046d:c077", "device": 2, "interfaces": {"1.0": "usbhid"}}},
}  # fmt: skip


def changed(*path: str, to: object) -> str:
    document = json.loads(json.dumps(GOOD))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(document)


BAD = {
    "no JSON": ("{", "is no JSON"),
    "no text": (b"\xff\xfe\x00", "is no JSON"),
    "deep": ("[" * 100_000, "is no JSON"),
    "a long number": ('{"version": ' + "1" * 10_000 + "}", "is no JSON"),
    "huge": (b" " * 5_000_000, "longer than 4194304 bytes"),
    "another file": ("[]", "it is '\\[\\]'; wanted an object"),
    "another format": ("{}", "its format is 'None' version 'None'"),
    "a newer version": (changed("version", to=2), "reads 'hostdev-machine' version 1"),
    "true is no version": (changed("version", to=True), "reads 'hostdev-machine' version 1"),
    "a key twice": ('{"kernel": "a", "kernel": "b"}', "'kernel' stands twice"),
    "not a number": (changed("pci", NIC, "numa_node", to=float("nan")), "NaN is no number"),
    "an unknown key": (changed("pci", NIC, "mac", to="x"), f"pci {NIC}: 'mac' is no known key"),
    "a missing key": (changed("pci", NIC, to={"id": "8086:10d3"}), "class is missing"),
    "no object": (changed("pci", NIC, to=3), f"pci {NIC}: it is '3'"),
    "no table": (changed("pci", to=[]), "pci is '\\[\\]'; wanted an object"),
    "a wrong type": (changed("pci", NIC, "iommu_group", to="1"), "iommu_group is '1'; wanted a whole"),
    "a truth": (changed("pci", NIC, "numa_node", to=True), "numa_node is 'True'; wanted a whole"),
    "lines": (changed("pci", NIC, "driver_override", to="a\nb"), "wanted a text of one line"),
    "half a letter": (changed("usb", "1-1", "product", to="\ud800"), "product is .* wanted a text"),
    "a path": (changed("pci", "../../etc", to={"id": "8086:10d3", "class": "020000"}), "no PCI addr"),
    "a short address": (
        changed("pci", "02:00.0", to={"id": "8086:10d3", "class": "020000"}),
        "wanted 0000:02:00.0",
    ),
    "an id": (changed("pci", NIC, "id", to="8086"), "id '8086' is out of its form; wanted 8086:10d3"),
    "a class": (changed("pci", NIC, "class", to="0200"), "class '0200' .* six hex digits"),
    "a driver's path": (changed("drivers", "../../x", to={}), "driver '../../x' is no name"),
    "a module's path": (changed("drivers", "x", to={"module": "../x"}), "module '../x' is out of"),
    "an interface's path": (changed("pci", NIC, "net", to=["../x"]), "interface '../x' is no name"),
    "a kernel's path": (changed("kernel", to="../../x"), "kernel '../../x' is out of its form"),
    "an unknown driver": (changed("pci", NIC, "kernel_driver", to="nvme"), "not among the loaded"),
    "a driver to load": (changed("pci", NIC, "kernel_driver", to="igb"), "not among the loaded"),
    "no bridge": (changed("pci", NIC, "parent", to="0000:00:02.0"), "is not in the file"),
    "a ring": (changed("pci", "0000:00:01.0", "parent", to=NIC), "hangs on itself"),
    "too many VFs": (changed("pci", NIC, "physfn", to="0000:00:01.0"), "no more than 0 virtual"),
    "interfaces": (changed("pci", NIC, "net", to=["a", "a"]), "interface 'a' is there already"),
    "a group": (changed("pci", NIC, "iommu_group", to=-1), "leave it out"),
    "a port": (changed("usb", "1-1/../..", to={"id": "1:2", "device": 2}), "is no USB port"),
    "a USB number": (changed("usb", "1-2", to={"id": "046d:c077", "device": 2}), "001:002 is taken"),
    "a USB controller": (changed("usb", "1-1", "controller", to="0000:00:14.0"), "not in the file"),
    "a USB interface": (changed("usb", "1-1", "interfaces", to={"../x": None}), "interface '../x'"),
    "an option": (changed("drivers", "igb", "option_ids", to=["x\ty"]), "id .* is out of its form"),
    "a slot": (changed("pciback_slots", to=["x"]), "pciback_slots: 'x' is no PCI address"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_an_error_that_says_where(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        replayed(text, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/machine.json: ")
    assert os.listdir(tmp_path) == ["machine.json"]


def test_a_missing_file_and_a_taken_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        SimulatedHost.replay(tmp_path / "none.json", tmp_path / "host")
    taken = tmp_path / "replayed"
    taken.mkdir()
    (taken / "mine").touch()
    with pytest.raises(InputError, match="not an empty directory"):
        replayed(json.dumps(GOOD), tmp_path)
    assert os.listdir(taken) == ["mine"]


def test_the_good_file_is_one(tmp_path: Path) -> None:
    host = replayed(json.dumps(GOOD), tmp_path)
    assert host.snapshot()[NIC]["kernel_driver"] == "e1000e"


leaves: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.sampled_from(["../../../../tmp/x", "/etc/passwd", "..", "", "\0", "a" * 5000, -1, 2**70, 1e400])
)  # fmt: skip
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4
)


def places(document: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


@settings(max_examples=100, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.sampled_from([*places(GOOD)]),
    st.none() | st.text() | st.sampled_from(["..", "/", "a/../b"]),
    values,
)
def test_whatever_is_in_a_file_it_is_a_machine_or_an_error(
    place: tuple[str, ...], key: str | None, value: object
) -> None:
    path = place if key is None else (*place[:-1], key)
    with scratch() as folder:
        inside = folder / "a" / "b"
        inside.mkdir(parents=True)
        refused = None
        try:
            replayed(changed(*path, to=value), inside)
        except InputError as error:
            refused = str(error)
        made = {"machine.json"} if refused else {"machine.json", "replayed"}
        assert {*os.listdir(inside)} == made
        assert refused is None or "machine.json: " in refused
        assert os.listdir(folder) == ["a"]
        assert os.listdir(folder / "a") == ["b"]
