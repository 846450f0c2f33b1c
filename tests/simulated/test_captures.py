"""A machine becomes a file, and the file a machine: the same one, or an error that says where."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hostdev_core import InputError, PCIAddress
from hostdev_core.bus.pci import list_pci
from hostdev_core.simulated import SimulatedHost
from tests.helpers.captures import capture, replayed, scratch
from tests.helpers.cli_command import MODPROBE
from tests.sample import NIC

pytestmark = [pytest.mark.quick_cases, pytest.mark.sample]

PATH = f"bus/pci/devices/{NIC}"

# --- random machines

hex_digits = st.sampled_from("0123456789abcdef")
ids = st.builds("{}:{}".format, *[st.text(hex_digits, min_size=4, max_size=4)] * 2)
hosts_drivers = st.sampled_from(["e1000e", "nvme", "snd hda", "xhci_hcd"])
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=20)
overrides = st.none() | st.sampled_from(["vfio-pci", "none", "two words"])


@st.composite
def cards(draw: st.DrawFn) -> dict[str, Any]:
    bridge = draw(st.booleans())
    return {
        "id": draw(ids),
        "class_": "060400" if bridge else draw(st.sampled_from(["020000", "010802", "0c0330"])),
        "subsystem": draw(ids),
        "revision": draw(st.sampled_from(["00", "a1"])),
        "driver_override": draw(overrides),
        "power_control": draw(st.sampled_from(["on", "auto"])),
        "header_type": draw(st.sampled_from([1, 1, 0x7F] if bridge else [0, 0, 0x7F])),
        "resets": draw(st.sampled_from(["", "flr bus", "pm"])),
        "iommu_group": draw(st.integers(0, 5)),
        "kernel_driver": draw(st.none() | (st.just("pcieport") if bridge else hosts_drivers)),
        "sriov_totalvfs": draw(st.sampled_from([0, 0, 0, 3])),
        "numa_node": draw(st.integers(-1, 3)),
    }


@st.composite
def machines(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """What add_pci is told, in its order: bridges may have children, PFs virtual functions."""
    calls: list[tuple[str, dict[str, Any]]] = []
    domains = st.sampled_from([0, 1, 0x10000])
    for bus, card in enumerate(draw(st.lists(cards(), max_size=6))):
        bridges = [name for name, other in calls if other["class_"] == "060400"]
        parent = draw(st.none() | st.sampled_from(bridges)) if bridges else None
        address = str(PCIAddress(draw(domains), bus, draw(st.integers(0, 31)), 0))
        works = card["kernel_driver"] is not None and card["class_"] == "020000"
        net = [f"net{bus}", f"net{bus}b"][: draw(st.integers(0, 2)) if works else 0]
        calls.append((address, {**card, "parent": parent, "net": net}))
        for number in range(draw(st.integers(0, card["sriov_totalvfs"]))):
            virtual = {**draw(cards()), "parent": parent, "physfn": address, "sriov_totalvfs": 0}
            calls.append((f"{address[:-1]}{number + 1}", virtual))
    return calls


@st.composite
def plugs(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    ports = draw(st.sets(st.sampled_from(["1-1", "1-1.4", "1-2", "2-1", "2-1.1.2"])))
    driver = st.none() | st.sampled_from(["usbhid", "usb-storage"])
    return {
        port: {
            "id": draw(ids),
            "serial": draw(st.none() | words),
            "product": draw(st.none() | words),
            "manufacturer": draw(st.none() | words),
            "controller": "platform" if port.startswith("2") else "0000:00:14.0",
            "interfaces": {f"1.{n}": draw(driver) for n in range(draw(st.integers(0, 3)))},
        }
        for port in sorted(ports)
    }


def everything(host: SimulatedHost) -> dict[str, object]:
    """All that is below sys, but numbers of the disk and what was held by nobody."""
    found: dict[str, object] = {}
    for folder, _, names in os.walk(f"{host.root}/sys"):
        for name in names:
            path = os.path.join(folder, name)
            key = os.path.relpath(path, host.root)
            if os.path.islink(path):
                found[key] = os.readlink(path)
            elif os.access(path, os.R_OK):
                found[key] = Path(path).read_bytes()
    return found


def chosen_variants(host: SimulatedHost) -> dict[str, str | None]:
    return {d.name: host.modules.vfio_variant(d.modalias) for d in list_pci(host.sysfs)}


@pytest.mark.long
@settings(max_examples=25, deadline=None, derandomize=True, phases=[Phase.generate])
@given(machines(), plugs(), st.booleans())
def test_a_replay_equals_its_machine(
    calls: list[tuple[str, dict[str, Any]]], ports: dict[str, dict[str, Any]], variant: bool
) -> None:
    with scratch() as folder:
        host = SimulatedHost.create(folder / "host", kernel_release="5.4.3-x")
        if variant:
            wanted = [card["id"] for _, card in calls]
            host.add_driver("mlx5-vfio-pci", module="mlx5_vfio_pci", loaded=False, blacklisted=True,
                            variant_for=wanted)  # fmt: skip
        host.sysfs.write("bus/pci/drivers_autoprobe", "0")  # the drivers take what they are given
        for address, card in calls:
            host.add_pci(address, **card)
        for port, plug in ports.items():
            host.add_usb(port, **plug)
        text = capture(host, serials=True)
        again = replayed(text, folder)
        assert capture(again, serials=True) == text
        assert again.snapshot() == host.snapshot()
        assert again.kernel_release == host.kernel_release
        before, after = everything(host), everything(again)
        others = {key for key in before if before[key] != after.get(key)}
        numbered = {
            key for key in others if key.endswith("/ifindex")
        }  # in the order of their making
        # Of the firmware a capture does not tell.
        numbered |= {key for key in others if key.startswith("sys/firmware/")}
        assert others - numbered <= {"sys/bus/pci/drivers_autoprobe"}
        chosen = [chosen_variants(each) for each in (host, again)]
        assert chosen[0] == chosen[1]
        assert ("mlx5_vfio_pci" in chosen[0].values()) == bool(variant and calls)
        assert not (variant and calls) or again.modules.blacklisted("mlx5_vfio_pci")


# --- what is captured


def test_serials_and_macs_only_when_asked_for(host: SimulatedHost, tmp_path: Path) -> None:
    host.add_pci("0000:06:00.0", kernel_driver="r8169", net=["enx5254deadbeef", "lan0"])
    plain, full = capture(host), capture(host, serials=True)
    assert "60A44C413FAE" not in plain
    assert "5254deadbeef" not in plain
    assert '"net": ["lan0"]' in plain
    assert "60A44C413FAE" in full
    assert '"net": ["enx5254deadbeef", "lan0"]' in full
    assert replayed(plain, tmp_path).sysfs.read("bus/usb/devices/1-3/serial") is None


def test_capturing_changes_nothing_and_wakes_nobody(host: SimulatedHost) -> None:
    status = Path(host.root, "sys", PATH, "power/runtime_status")
    config = Path(host.root, "sys", PATH, "config")
    os.chmod(status, 0o644)
    status.write_text("suspended\n")
    config.write_bytes(bytes(14) + b"\x7f" + bytes(49))  # what must not be read
    before = everything(host)
    asleep = json.loads(capture(host))["pci"][NIC]
    assert everything(host) == before
    assert host.writes() == []
    assert "header_type" not in asleep
    status.write_text("active\n")
    assert json.loads(capture(host))["pci"][NIC]["header_type"] == 0x7F


def test_a_device_that_hangs_delays_nobody(host: SimulatedHost, tmp_path: Path) -> None:
    host.on_write(f"{PATH}/driver/unbind", hang=True)
    write = threading.Thread(
        target=lambda: host.sysfs.write(f"{PATH}/driver/unbind", NIC), daemon=True
    )
    write.start()
    host.wait_hanging()
    try:
        entry = json.loads(capture(host))["pci"][NIC]
    finally:
        host.release()
        write.join()
    assert entry["unread"].startswith("driver_override: the kernel did not answer")
    assert entry["id"] == "8086:10d3"
    assert replayed(capture(host), tmp_path).snapshot() == host.snapshot()


def test_stubs_and_what_modprobe_d_says_of_them(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, id="10de:2204", class_="030000")
    host.add_driver("pci-stub", module="pci_stub", loaded=False, blacklisted=True)
    Path(host.root, "etc/modprobe.d/vfio.conf").write_text(
        "options vfio-pci ids=10DE:2204,8086:10d3:ffff:ffff, disable_vga=1\n"
    )
    drivers = json.loads(capture(host))["drivers"]
    assert drivers["vfio-pci"]["option_ids"] == ["10de:2204", "8086:10d3"]
    assert drivers["pci-stub"]["blacklisted"] is True
    again = replayed(capture(host), tmp_path)
    assert again.modules.options("vfio-pci") == "ids=10de:2204,8086:10d3"
    assert again.modules.blacklisted("pci_stub")
    assert capture(again) == capture(host)


def test_slots_of_pciback(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "host", dom0=True)
    host.add_pci(NIC, kernel_driver="pciback")
    host.add_pci("0000:02:00.0", kernel_driver="e1000e")
    host.sysfs.write("bus/pci/drivers/pciback/new_slot", "0000:02:00.0")
    again = replayed(capture(host), tmp_path)
    assert again.is_dom0
    assert again.snapshot() == host.snapshot()


def test_the_running_machine_can_be_captured_and_replayed(tmp_path: Path) -> None:
    text = SimulatedHost.capture("/sys")
    document = json.loads(text)
    assert document["kernel"] == os.uname().release
    again = replayed(text, tmp_path)
    parts = (json.loads(capture(again)), document)
    told: dict[str, Any] = {"origin": "", "left_out": []}
    lines = document.get("left_out", [])
    assert lines == [] if MODPROBE else all("modprobe cannot be asked" in line for line in lines)
    assert parts[0] | told == parts[1] | told


@pytest.mark.parametrize("path", ["/proc", "nowhere/sys", ""])
def test_what_is_no_sysfs(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted one like /sys"):
        SimulatedHost.capture(tmp_path / path if path != "/proc" else path)


def _attributes(host: SimulatedHost) -> Path:
    return Path(os.path.realpath(f"{host.root}/sys/{PATH}"))


@pytest.mark.parametrize("kernel", ["writes small letters", "writes no modalias"])
def test_ids_of_a_kernel_whose_modalias_is_of_no_use(tmp_path: Path, kernel: str) -> None:
    """Before 3.19 its interface was in small letters; the attributes tell the same."""
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, id="8086:3a20", class_="01018f", subsystem="1028:02da", iommu_group=1)
    wanted, whole = list_pci(host.sysfs), capture(host)
    file = _attributes(host) / "modalias"
    text = file.read_text()
    file.unlink()
    if kernel == "writes small letters":
        file.write_text(text[:-3] + text[-3:].lower())
    assert list_pci(host.sysfs) == wanted
    assert capture(host) == whole
    assert json.loads(capture(host))["pci"][NIC]["class"] == "01018f"


def test_nothing_is_left_out_without_a_word(tmp_path: Path) -> None:
    host = SimulatedHost.create(tmp_path / "host")
    host.add_pci(NIC, iommu_group=1, sriov_totalvfs=1)
    host.add_pci("0000:01:00.1", iommu_group=2, physfn=NIC)
    host.add_usb("1-1", id="046d:c077")
    assert "left_out" not in json.loads(capture(host))
    for name in "modalias", "vendor":
        (_attributes(host) / name).unlink()
    os.unlink(f"{host.root}/sys/bus/usb/devices/1-1/idVendor")
    document = json.loads(capture(host))
    assert [line.split(":")[0] for line in document["left_out"]] == [
        "pci 0000", "pci 0000", "usb 1-1",
    ]  # fmt: skip
    assert NIC in document["left_out"][0]
    assert NIC in document["left_out"][1]  # whose virtual function cannot be described as one
    assert NIC not in document["pci"]
    assert "usb" not in document
    again = replayed(capture(host), tmp_path)
    assert [device.name for device in list_pci(again.sysfs)] == ["0000:00:14.0", "0000:01:00.1"]
