"""Anything in the files of a machine: it is shown or refused, without an escape, a wait or a way out."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import QEMU
from tests.hostile.command import call, slow
from tests.sample import NIC

STICK = "1-1"
ATTRIBUTES = (
    *(f"bus/pci/devices/{NIC}/{name}" for name in
      ("modalias", "driver_override", "class", "vendor", "sriov_numvfs", "sriov_totalvfs",
       "reset_method", "revision", "numa_node", "config", "power/control")),
    *(f"bus/usb/devices/{STICK}/{name}" for name in
      ("busnum", "devnum", "idVendor", "idProduct", "product", "manufacturer", "serial",
       "bDeviceClass")),
)  # fmt: skip
LINKS = ("driver", "iommu_group", "physfn", "subsystem", "virtfn0")
OTHERS = (
    "proc/xen/capabilities", "etc/modprobe.d/x.conf", "lib/modules/6.1.0-simulated/modules.alias",
    "lib/modules/6.1.0-simulated/modules.dep", "lib/modules/6.1.0-simulated/modules.builtin",
    "usr/share/hwdata/pci.ids", "usr/share/hwdata/usb.ids", "dev/kmsg",
)  # fmt: skip
BAD_BYTES = (
    b"", b"\n", b"\x00" * 9, b"\xff\xfe", b"\x1b]0;title\x07", b"\x1b[2J", b"\xc2\x9b31m",
    b"9" * 5000, b"-1\n", b"1e9", "\u0661\n".encode(), "\u202eabc\u2066".encode(), b"a\nb\nc",
    b"../../../etc/passwd", b"x" * 10_000_000, b"vfio-pci", b"(null)\n", b"alias vfio_pci:* ../x\n",
    b"alias vfio_pci:*\n", b"options vfio_pci ids=\n" * 9, b"\nC 02  \x1b[31mred\n",
    b"pci:v00008086d000010D3sv00008086sd00000000bc06sc04i00\n",
)  # fmt: skip
contents = st.sampled_from(BAD_BYTES) | st.binary(max_size=100)
targets = st.sampled_from(
    ["", ".", "..", "../..", "/", "/etc", "/etc/passwd", "x/", "driver", "a\nb", "\x1b[31m", "\udcff",
     "9" * 200, "../../drivers/nothing", "\u0661", "\u202e", "0000:01:00.0", "99999999999999999999"]
) | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return new_machine(tmp_path)


def new_machine(folder: Path) -> Path:
    shutil.rmtree(folder / "host", ignore_errors=True)
    (folder / "outside").mkdir(exist_ok=True)
    host = SimulatedHost.create(folder / "host")
    host.add_pci(NIC, kernel_driver="e1000e", iommu_group=1)
    host.add_pci("0000:02:00.0", kernel_driver="e1000e", iommu_group=2)
    host.add_usb(STICK, id="046d:c077", product="Mouse", serial="1")
    return Path(host.root)


def everything(root: Path) -> str:
    """All commands over this machine; what they print. Nothing appears outside of it."""
    host, shown = SimulatedHost.open(root), ""
    for line in (
        ("list",), ("list", "--json"), ("show", NIC), ("show", STICK), ("status",),
        (*QEMU, "plan", "vm1", NIC, STICK), (*QEMU, "prepare", "vm1", NIC),
        (*QEMU, "prepare", "vm1", STICK), (*QEMU, "reattach", "vm1"),
    ):  # fmt: skip
        answer = call("--timeout", "5", *line, host=host)
        shown += answer.out + answer.err
    assert {*os.listdir(root.parent)} == {"host", "outside"}
    assert os.listdir(root.parent / "outside") == []
    return shown


@pytest.mark.long
@slow
@given(
    st.dictionaries(
        st.sampled_from((*(f"sys/{name}" for name in ATTRIBUTES), *OTHERS)), contents, min_size=4
    )
)
def test_any_bytes_in_files(tmp_path: Path, files: dict[str, bytes]) -> None:
    root = new_machine(tmp_path)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert len(everything(root)) < 200_000


@pytest.mark.long
@slow
@given(st.dictionaries(st.sampled_from(LINKS), targets, min_size=2))
def test_links_that_lead_anywhere(tmp_path: Path, links: dict[str, str]) -> None:
    root = new_machine(tmp_path)
    for name, target in links.items():
        path = root / f"sys/bus/pci/devices/{NIC}" / name
        if path.is_symlink():
            path.unlink()
        if target and not path.exists():
            os.symlink(target, path)
    everything(root)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _outside(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [_pipe, _folder, _outside, _loop, _endless])
def test_no_file_where_a_file_should_be(root: Path, put: Callable[[Path], None]) -> None:
    for name in (*(f"sys/{attribute}" for attribute in ATTRIBUTES), *OTHERS):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        put(path)
    assert "root:" not in everything(root)


def test_odd_names_among_the_devices(root: Path) -> None:
    for number, name in enumerate(
        ["\x1b[31m", "a\nb", "\udcff", "x" * 255, "0000:09:00.0", "0000:0a:00.0", "0000:0b:00.0",
         "10000000000:01:00.0", "0000:0c:00.\u0661", "1-2", "1-3", "1-\u0661", "usb9", "1-4:1.0"]
    ):  # fmt: skip
        for bus in ("pci", "usb"):
            path = root / f"sys/bus/{bus}/devices" / name
            if number % 3 == 0:
                path.write_text("x")
            elif number % 3 == 1:
                path.symlink_to("/nowhere/\x1b[31m")
            else:
                path.symlink_to(path.name)
    everything(root)


def test_a_device_that_lies_outside_is_not_changed(root: Path) -> None:
    device = root / f"sys/bus/pci/devices/{NIC}"
    real = device.resolve()
    outside = root.parent / "outside" / "0000:01:00.0"
    shutil.move(real, outside)
    device.unlink()
    device.symlink_to(outside)
    files = [path for path in outside.rglob("*") if path.is_file() and os.access(path, os.R_OK)]
    before = [path.read_bytes() for path in files]
    call(*QEMU, "prepare", "vm1", NIC, host=SimulatedHost.open(root))
    assert [path.read_bytes() for path in files] == before


def test_what_a_device_calls_itself_does_not_reach_the_terminal(root: Path) -> None:
    for name in ("product", "manufacturer", "serial"):
        path = root / f"sys/bus/usb/devices/{STICK}" / name
        path.unlink(missing_ok=True)
        path.write_bytes(b"\x1b]0;owned\x07Mou\x1b[31mse\xe2\x80\xae\n")
    shown = call("show", STICK, host=SimulatedHost.open(root)).out
    assert "Mou[31mse" in shown
