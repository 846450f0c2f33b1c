"""Descriptions of machines that contradict themselves: refused where they say so, or as good as any.

Whatever a file says that becomes a machine, a device of it is lent and comes back as it was found, or
is refused, and nothing was changed.
"""

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostdev_libxl
from hostdev_core import (
    Domain,
    HostdevError,
    InputError,
    PCIHostdev,
    PrepareFlags,
    Registry,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import make_registry

PCI = ("0000:00:01.0", "0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "10000:00:02.0")
PORTS = ("1-1", "1-1.2", "2-3")
NAMES = ("e1000e", "xhci_hcd", "vmd", "pcieport", "vfio-pci", "nic-vfio-pci", "pci-stub",
         "pci-pf-stub", "pciback", "snd hda")  # fmt: skip
drivers = st.none() | st.sampled_from(NAMES)
small = st.sampled_from(["8086:10d3", "8086:1533", "10de:2204"])


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def seldom(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is refused as a rule."""
    return st.integers(0, 5).flatmap(lambda number: st.none() if number else strategy)


cards = st.fixed_dictionaries(
    {"id": small, "class": st.sampled_from(["020000", "060400", "060000", "0c0330", "010802"])},
    optional={
        "kernel_driver": drivers,
        "driver_override": drivers | st.just("nobody"),
        "iommu_group": maybe(st.integers(1, 3)),
        "header_type": maybe(st.sampled_from([0, 1, 2, 127])),
        "power_control": st.sampled_from(["on", "auto"]),
        "resets": st.sampled_from(["", "flr"]),
        "parent": seldom(st.sampled_from(PCI)),
        "physfn": seldom(st.sampled_from(PCI)),
        "sriov_totalvfs": st.sampled_from([0, 2]),
        "net": st.lists(st.sampled_from(["eth0", "eth1"]), max_size=1),
    },
)
modules = st.fixed_dictionaries(
    {},
    optional={
        "module": maybe(st.sampled_from(["vfio_pci", "shared", "own"])),
        "loaded": st.sampled_from([True, True, True, False]),
        "variant_for": st.lists(small, max_size=1),
        "blacklisted": st.booleans(),
        "option_ids": st.lists(small, max_size=1),
    },
)
sticks = st.fixed_dictionaries(
    {"id": small, "device": st.integers(1, 9)},
    optional={
        "controller": seldom(st.sampled_from(PCI)),
        "bus": maybe(st.integers(1, 2)),
        "hub": st.booleans(),
        "interfaces": st.dictionaries(st.sampled_from(["1.0", "1.1", "2.0"]), drivers, max_size=2),
    },
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    pci: dict[str, dict[str, Any]] = draw(st.dictionaries(st.sampled_from(PCI), cards, min_size=1))
    named: set[str] = {card["kernel_driver"] for card in pci.values() if card.get("kernel_driver")}
    # As a rule what devices are on is there: most of what is refused otherwise is that.
    known: dict[str, dict[str, Any]] = (
        {name: {} for name in sorted(named)} if draw(st.integers(0, 9)) else {}
    )
    return {
        "format": "hostdev-machine",
        "version": 1,
        "kernel": "6.1.0",
        "dom0": draw(st.booleans()),
        "pciback_slots": draw(st.lists(st.sampled_from(PCI), max_size=1)),
        "drivers": known | draw(st.dictionaries(st.sampled_from(NAMES), modules, max_size=3)),
        "pci": pci,
        "usb": draw(st.dictionaries(st.sampled_from(PORTS), sticks, max_size=2)),
    }


def registry() -> Registry:
    found = make_registry()
    found.register(hostdev_libxl, name="libxl")
    return found


def made(document: dict[str, Any], folder: Path) -> SimulatedHost | None:
    """The machine; None when the file was refused, which names the place and leaves nothing behind."""
    file = folder / "machine.json"
    file.write_text(json.dumps(document))
    try:
        return SimulatedHost.replay(file, folder / "host")
    except InputError as error:
        said = str(error)
    assert said.startswith(str(file))
    assert not (folder / "host").exists()
    return None


def lend_each(host: SimulatedHost, flags: PrepareFlags) -> int:
    """Lend every device of the machine alone, and give it back; how many could be lent."""
    lent, before = 0, host.snapshot()
    uri = "xen:///system" if host.is_dom0 else "qemu:///system"
    stubs = (None,) if host.is_dom0 else (None, "pci-stub", "vfio-pci")
    asked = [PCIHostdev(address=name, stub=stub) for name in PCI for stub in stubs]
    with open_connection(uri, host=host, registry=registry()) as conn:
        for hostdev in (*asked, *PORTS):
            with suppress(HostdevError):
                conn.prepare_hostdevs(Domain("vm1", [hostdev]), flags)
                lent += 1
            conn.reattach_hostdevs("vm1")
            assert host.ledger.records() == [], hostdev
            assert host.snapshot() == before, hostdev
    return lent


def goes_round(document: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        host = made(document, folder)
        if host is not None:
            lend_each(host, PrepareFlags.NONE)
            lend_each(host, PrepareFlags.WHOLE_GROUP)
            (folder / "again").mkdir()
            text = SimulatedHost.capture(f"{host.root}/sys")
            assert made(json.loads(text), folder / "again") is not None
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("table", "name", "changes", "said"),
    [
        ("pci", PCI[1], {"iommu_group": None}, "in no IOMMU group, which VFIO does not bind"),
        ("pci", PCI[1], {"header_type": 1}, "a bridge, which VFIO does not bind"),
        ("pci", PCI[1], {"kernel_driver": "nobody"}, "not among the loaded drivers"),
        ("pci", PCI[2], {"physfn": PCI[3]}, "is not in the file"),
        ("pci", PCI[2], {"parent": PCI[2]}, "it hangs on itself"),
        ("pci", PCI[0], {"kernel_driver": "vfio-pci"}, f"{PCI[0]} is on vfio-pci, where no USB"),
        ("pci", PCI[0], {"kernel_driver": None}, "on no driver, where no USB device is seen"),
        ("usb", "1-1", {"controller": PCI[3]}, "is not in the file"),
        ("usb", "1-1", {"device": 1}, "its root hub"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, table: str, name: str, changes: dict[str, Any], said: str
) -> None:
    """It says of each entry what is wrong, and where."""
    document: dict[str, Any] = {
        "format": "hostdev-machine", "version": 1, "kernel": "6.1.0",
        "drivers": {"vfio-pci": {"module": "vfio_pci"}, "xhci_hcd": {}},
        "pci": {
            PCI[0]: {"id": "8086:a36d", "class": "0c0330", "kernel_driver": "xhci_hcd",
                     "iommu_group": 1},
            PCI[1]: {"id": "8086:10d3", "class": "020000", "kernel_driver": "vfio-pci",
                     "iommu_group": 2},
            PCI[2]: {"id": "8086:10d3", "class": "020000", "iommu_group": 2},
        },
        "usb": {"1-1": {"id": "046d:c077", "device": 4, "controller": PCI[0]}},
    }  # fmt: skip
    host = made(document, tmp_path)
    assert host is not None
    assert lend_each(host, PrepareFlags.NONE) > 1
    shutil.rmtree(host.root)
    document[table][name] |= changes
    (tmp_path / "machine.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=said):
        SimulatedHost.replay(tmp_path / "machine.json", tmp_path / "host")


@settings(max_examples=12)
@given(documents())
def test_whatever_becomes_a_machine_goes_round(document: dict[str, Any]) -> None:
    goes_round(document)


@pytest.mark.long
@settings(max_examples=250)
@given(documents())
def test_whatever_becomes_a_machine_goes_round_at_length(document: dict[str, Any]) -> None:
    goes_round(document)
