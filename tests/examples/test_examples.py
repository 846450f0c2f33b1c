"""The examples run as they stand, and leave nothing behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PCI = "/sys/bus/pci/devices"


def run_example(name: str, folder: Path, *options: str) -> str:
    """Run it with `folder` for its temporary files; what it printed."""
    done = subprocess.run(
        [sys.executable, *options, EXAMPLES / name],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_open_prepare_start_reattach(tmp_path: Path) -> None:
    start, lent, held, back = run_example("open_prepare_start_reattach.py", tmp_path).splitlines()
    assert start == (
        "start: qemu-system-x86_64 -S -nographic -serial none -monitor stdio"
        " -device vfio-pci,host=0000:01:00.0 -device usb-host,hostbus=1,hostport=3"
    )
    assert lent == "0000:01:00.0 is on vfio-pci, with domain 'example' of qemu (qemu:///system)"
    assert re.fullmatch(rf"held: {re.escape(str(tmp_path))}/.+/dev/vfio/1", held)
    assert back == "given back: 0000:01:00.0 1-3"
    assert not list(tmp_path.iterdir())


def test_own_backend(tmp_path: Path) -> None:
    assert run_example("own_backend.py", tmp_path).splitlines() == [
        f"cloud-hypervisor --device path={PCI}/0000:01:00.0/ path={PCI}/0000:02:00.0/",
        "given back: 0000:01:00.0 0000:02:00.0",
        "as found: True",
    ]
    assert not list(tmp_path.iterdir())


def test_swap_the_backend(tmp_path: Path) -> None:
    assert "3 passed" in run_example("swap_the_backend.py", tmp_path)


@pytest.mark.long
def test_long_running_manager(tmp_path: Path) -> None:
    assert run_example("long_running_manager.py", tmp_path).splitlines() == [
        "- killed in the middle of a prepare",
        "0000:01:00.0: recovered",
        "0000:02:00.0: recovered",
        "vm1 has 0000:01:00.0, 0000:02:00.0",
        "vm2 has 1-3",
        "- killed; before the next start, a card is pulled out",
        "0000:02:00.0 is gone; released from vm1",
        "vm1 has 0000:01:00.0",
        "vm2 has 1-3",
        "- the USB stick is pulled out, the other card is unbound by hand",
        "1-3 is gone; released from vm2",
        "0000:01:00.0 is rebound: on no driver, lent on vfio-pci; somebody must see to that",
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_vm_manager(tmp_path: Path) -> None:
    said = run_example("vm_manager", tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert re.search(r"^9 passed in", said, re.MULTILINE)


def test_every_example_is_run_here() -> None:
    """But libvirt_hook_qemu.py, which has test_libvirt_hook.py."""
    names = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
    assert names == {
        "libvirt_hook_qemu.py",
        "long_running_manager.py",
        "open_prepare_start_reattach.py",
        "own_backend.py",
        "swap_the_backend.py",
        "vm_manager",
    }
