"""A type checker refuses what the constructors and calls would refuse, and takes what they take."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
from collections.abc import Iterable

from hostdev_core import (
    Connection, Domain, PCIAddress, PCIDevice, PCIHostdev, Returned, USBDevice, USBHostdev
)

address = PCIAddress(0, 1, 0, 0)


def good(conn: Connection, pci: PCIDevice, usb: USBDevice, rules: Iterable[str]) -> None:
    PCIHostdev(address="01:00.0")
    PCIHostdev(address=address, managed=False, stub="vfio-pci", allow=rules)
    PCIHostdev(address=pci.address, allow={"one"})
    USBHostdev(port="1-1", startup_policy="optional", allow=["one"])
    Domain("vm1")
    Domain("vm1", "01:00.0", uuid=None)
    Domain("vm1", ["01:00.0", PCIHostdev(address=address), USBHostdev(serial="1"), pci, usb, address])
    Domain("vm1", (name for name in ("1-1", "1-2")), uuid="a")
    conn.prepare_pci_hostdevs("vm1", ["01:00.0", pci, PCIHostdev(address=address)])
    conn.reattach_usb_hostdevs(Domain("vm1"), conn.get_domain_active_usb_hostdev_list("vm1"))
    conn.detach_device("01:00.0", allow=["one"])
    back: Returned = conn.reattach_hostdevs("vm1")
    also: tuple[str, ...] = back
    for hostdev in Domain("vm1", [pci]).hostdevs:
        text: str = hostdev.kind


def bad(conn: Connection, pci: PCIDevice) -> None:
    PCIHostdev(address=5)  # refused
    PCIHostdev(address=None)  # refused
    PCIHostdev(address=pci)  # refused
    PCIHostdev(address="01:00.0", allow=5)  # refused
    PCIHostdev(address="01:00.0", allow=[5])  # refused
    PCIHostdev(address="01:00.0", managed="no")  # refused
    PCIHostdev(address="01:00.0", stub=5)  # refused
    USBHostdev(port=5)  # refused
    USBHostdev(bus="1", device=1)  # refused
    USBHostdev(port="1-1", allow=5)  # refused
    USBHostdev(port="1-1", startup_policy="never")  # refused
    Domain(5)  # refused
    Domain("vm1", 5)  # refused
    Domain("vm1", [5])  # refused
    Domain("vm1", [None])  # refused
    Domain("vm1", uuid=5)  # refused
    conn.prepare_hostdevs(5)  # refused
    conn.prepare_pci_hostdevs("vm1", [5])  # refused
    conn.reattach_usb_hostdevs("vm1", [b"1-1"])  # refused
    conn.detach_device("01:00.0", allow=5)  # refused
    conn.detach_device(5)  # refused
"""


@pytest.mark.long
def test_mypy_refuses_what_is_of_another_type(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    words = ["--strict", "--no-error-summary", f"--cache-dir={tmp_path / 'cache'}", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stderr == ""
    refused = {int(match[1]) for match in re.finditer(r"program\.py:(\d+): error", done.stdout)}
    wanted = {n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# refused")}
    assert refused == wanted, done.stdout
