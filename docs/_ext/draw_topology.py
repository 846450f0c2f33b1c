"""Draw the devices of a simulated machine; `python docs/_ext/draw_topology.py` writes the picture anew.

The machine has what a picture is to show: two processors, a card with two functions in one IOMMU group, one
with virtual functions, a hub; and some of it is lent, by the command that draws it, too.
The machine brings along the names, which are those of the files pci.ids and usb.ids.
"""

import io
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from hostdev_core.cli import main
from hostdev_core.simulated import SimulatedHost

PICTURE = Path(__file__).parents[1] / "pictures" / "topology.svg"
PCI_IDS = """\
10de  NVIDIA Corporation
\t1aef  GA102 High Definition Audio Controller
\t2204  GA102 [GeForce RTX 3090]
144d  Samsung Electronics Co Ltd
\ta808  NVMe SSD Controller SM981/PM981/PM983
8086  Intel Corporation
\t1520  I350 Ethernet Controller Virtual Function
\t1521  I350 Gigabit Network Connection
\t2030  Sky Lake-E PCI Express Root Port A
\ta2af  200 Series/Z370 Chipset Family USB 3.0 xHCI Controller
"""
USB_IDS = """\
046d  Logitech, Inc.
\tc077  Mouse
0951  Kingston Technology
\t1666  DataTraveler 100 G3/G4/SE9 G2/50 Kyson
1d6b  Linux Foundation
\t0002  2.0 root hub
"""
LOANS = (
    "prepare desktop 0000:01:00.0 1-1.1 --whole-group",
    "prepare router 0000:81:10.0",
    "device detach 0000:02:00.0",
)


def make_machine(path: str) -> SimulatedHost:
    """Make the machine in a directory."""
    host = SimulatedHost.create(path)
    for name, text in (("pci.ids", PCI_IDS), ("usb.ids", USB_IDS)):
        file = Path(host.path(f"usr/share/hwdata/{name}"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    ports = {"0000:00:01.0": 1, "0000:00:02.0": 2, "0000:80:00.0": 10, "0000:80:02.0": 10}
    for port, group in ports.items():
        node = 1 if port.startswith("0000:80") else 0
        host.add_pci(
            port,
            id="8086:2030",
            class_="060400",
            kernel_driver="pcieport",
            iommu_group=group,
            numa_node=node,
        )
    _add_left(host)
    _add_right(host)
    return host


def _add_left(host: SimulatedHost) -> None:
    """What is at the first processor."""
    host.add_pci(
        "0000:00:14.0",
        id="8086:a2af",
        class_="0c0330",
        kernel_driver="xhci_hcd",
        iommu_group=3,
        numa_node=0,
    )
    host.add_usb("1-1.1", id="046d:c077", controller="0000:00:14.0")
    host.add_usb("1-1.4", id="0951:1666", kernel_driver="usb-storage")
    host.add_pci(
        "0000:01:00.0",
        id="10de:2204",
        class_="030000",
        kernel_driver="nouveau",
        iommu_group=4,
        parent="0000:00:01.0",
        numa_node=0,
    )
    host.add_pci(
        "0000:01:00.1",
        id="10de:1aef",
        class_="040300",
        kernel_driver="snd_hda_intel",
        iommu_group=4,
        parent="0000:00:01.0",
        numa_node=0,
    )
    host.add_pci(
        "0000:02:00.0",
        id="144d:a808",
        class_="010802",
        kernel_driver="nvme",
        iommu_group=5,
        parent="0000:00:02.0",
        numa_node=0,
    )


def _add_right(host: SimulatedHost) -> None:
    """What is at the second processor."""
    host.add_pci(
        "0000:81:00.0",
        id="8086:1521",
        kernel_driver="igb",
        iommu_group=11,
        parent="0000:80:00.0",
        numa_node=1,
        net="eth0",
        sriov_totalvfs=7,
    )
    for number in range(2):
        host.add_pci(
            f"0000:81:10.{4 * number}",
            id="8086:1520",
            kernel_driver="igbvf",
            iommu_group=12 + number,
            parent="0000:80:00.0",
            physfn="0000:81:00.0",
            numa_node=1,
        )
    host.add_pci(
        "0000:82:00.0",
        id="144d:a808",
        class_="010802",
        kernel_driver="nvme",
        iommu_group=14,
        parent="0000:80:02.0",
        numa_node=1,
        block="nvme1n1",
    )


def draw() -> str:
    """Lend, and draw what that is like."""
    with tempfile.TemporaryDirectory(prefix="hostdev-picture-") as folder:
        host = make_machine(os.path.join(folder, "machine"))
        file = os.path.join(folder, "topology.svg")
        told = io.StringIO()
        for line in (*LOANS, f"topology --svg {file}"):
            words = [*line.split(), "-c", "qemu:///system", "--host", host.root]
            with redirect_stdout(told), redirect_stderr(told):
                code = main(words)
            if code:
                sys.exit(f"hostdev {line}: exit code {code}\n{told.getvalue()}")
        return Path(file).read_text(encoding="utf-8")


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
