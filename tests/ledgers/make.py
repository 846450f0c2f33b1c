"""Write what a version of hostdev leaves in its ledger, for the tests of later ones to read.

    python tests/ledgers/make.py FOLDER   # with that version on PYTHONPATH

writes FOLDER/schema-N.sql, its state.db as SQL, and FOLDER/schema-N.json: the devices as they were
found and as they are now. Uses only what each version has.
"""

import json
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostdev_core import (
    Connection,
    Domain,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    USBHostdev,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost
from tests.sample import make_registry

UUID = "6c8a3f9e-0a3c-4c59-9e65-2f1bd1c3d5a1"
STICK = {"port": "1-1", "id": "0951:1666", "serial": "60A4", "controller": "0000:00:14.0"}
CARDS: dict[str, tuple[str, str, int, str | None]] = {
    "0000:01:00.0": ("8086:10d3", "e1000e", 1, None),
    "0000:02:00.0": ("144d:a808", "nvme", 2, "nvme"),
    "0000:03:00.0": ("10de:2204", "nouveau", 3, None),
    "0000:03:00.1": ("10de:1aef", "snd_hda_intel", 3, None),
    "0000:04:00.0": ("8086:1521", "igb", 4, None),
    "0000:04:00.1": ("8086:1521", "igb", 4, None),
    "0000:05:00.0": ("8086:10d3", "e1000e", 5, None),
    "0000:06:00.0": ("8086:10d3", "e1000e", 6, None),
    "0000:07:00.0": ("8086:10d3", "e1000e", 7, None),
    "0000:08:00.0": ("8086:10d3", "e1000e", 8, None),
    "0000:09:00.0": ("8086:10d3", "e1000e", 9, None),
}


def connect(host: SimulatedHost) -> Connection:
    """A connection of a registry of its own."""
    registry = make_registry()
    return open_connection("qemu:///system", host=host, registry=registry)


def make_host(folder: str) -> SimulatedHost:
    """The machine as it was found."""
    host = SimulatedHost.create(folder)
    for address, (ids, driver, group, override) in CARDS.items():
        host.add_pci(
            address, id=ids, kernel_driver=driver, iommu_group=group, driver_override=override
        )
    host.add_usb(**STICK, device=5, kernel_driver="usb-storage")  # type: ignore[arg-type]
    return host


def die(root: str, act: Callable[[Connection], object], moment: str) -> None:
    """Let a process be killed in the middle of a call."""
    pid = os.fork()
    if pid == 0:
        conn = connect(SimulatedHost.open(root))
        conn.host.watch(
            lambda what: os.kill(os.getpid(), signal.SIGKILL) if moment in what else None
        )
        act(conn)
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), moment


def lend(host: SimulatedHost) -> None:
    """Records of every kind."""
    conn, vm1 = connect(host), ("vm1", UUID)
    nic = PCIHostdev(address="01:00.0", allow=frozenset({"network"}))
    conn.prepare_hostdevs(Domain(vm1[0], [nic, USBHostdev(port="1-1")], uuid=vm1[1]))
    conn.detach_device("02:00.0")
    gpu = Domain("vm1", ["03:00.0"], uuid=UUID)
    conn.prepare_hostdevs(gpu, PrepareFlags.WHOLE_GROUP)
    conn.prepare_hostdevs(Domain("vm2", ["04:00.0", "04:00.1"]))
    conn.reattach_pci_hostdevs("vm2", [PCIHostdev(address="04:00.1")])
    conn.detach_device("05:00.0")
    conn.prepare_hostdevs(Domain("vm2", ["05:00.0"]))
    die(
        host.root,
        lambda c: c.prepare_hostdevs(Domain("vm4", ["06:00.0"])),
        "after write bus/pci/drivers/e1000e/unbind",
    )
    die(host.root, lambda c: c.prepare_hostdevs(Domain("vm5", ["09:00.0"])), "after transaction")
    conn.prepare_hostdevs(Domain("vm3", ["07:00.0", "08:00.0"]))
    host.sysfs.write("bus/pci/devices/0000:08:00.0/driver_override", "foreign")
    try:
        conn.reattach_pci_hostdevs("vm3", [PCIHostdev(address="08:00.0")])
    except ReattachError:
        pass
    die(
        host.root,
        lambda c: c.reattach_hostdevs("vm3"),
        "after write bus/pci/drivers/vfio-pci/unbind",
    )


def main(folder: Path) -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory() as place:
        host = make_host(f"{place}/machine")
        found = host.snapshot()
        lend(host)
        machine: dict[str, Any] = {"found": found, "present": host.snapshot()}
        with sqlite3.connect(host.ledger.path) as ledger:
            version = ledger.execute("PRAGMA user_version").fetchone()[0]
            rows = "\n".join(ledger.iterdump())
    name = folder / f"schema-{version}"
    name.with_suffix(".sql").write_text(f"{rows}\nPRAGMA user_version = {version};\n")
    name.with_suffix(".json").write_text(json.dumps(machine, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
