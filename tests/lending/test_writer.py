"""A write that hangs, has no effect, or meets another card: the rest stops, and nothing is guessed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hostdev_core import (
    Connection,
    Domain,
    Host,
    KernelError,
)
from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost
from tests.helpers.processes import wait_until
from tests.sample import DISK, NIC


@pytest.mark.parametrize("path", ["*/vfio-pci/bind", "*/driver_override", "*/e1000e/unbind"])
def test_a_write_without_effect_is_not_done(
    host: SimulatedHost, conn: Connection, path: str
) -> None:
    before = host.snapshot()
    host.on_write(path, effect=False)
    with pytest.raises(KernelError, match="the write returned, but it is"):
        conn.prepare_hostdevs(Domain("vm1", [NIC]))
    assert host.snapshot() == before
    assert host.ledger.records() == []


LATE = """
import sys, time
from hostdev_core import Deadlines, Domain, KernelTimeoutError, open_connection
from hostdev_core.simulated import SimulatedHost
host = SimulatedHost.open(sys.argv[1], deadlines=Deadlines(bind=0.5))
with open_connection("qemu:///system", host=host) as conn:
    try:
        conn.prepare_hostdevs(Domain("vm1", sys.argv[2:]))
    except KernelTimeoutError as error:
        print(error.value, flush=True)
"""


def test_one_that_hangs_keeps_the_others_from_going_on(host: SimulatedHost) -> None:
    """All or none: what has not reached its stub yet when another is overdue does not go there."""
    host.on_write("*/vfio-pci/bind", value=NIC, hang=True)
    host.on_write(f"*/{DISK}/driver_override", delay=1.5)
    with subprocess.Popen(
        [sys.executable, "-c", LATE, host.root, NIC, DISK], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == NIC
            bound = [value for path, value in host.writes() if "vfio-pci/bind" in path]
            assert not any(DISK in value for value in bound)
            assert host.snapshot()[DISK]["kernel_driver"] == "nvme"
        finally:  # or a test that fails would wait for ever
            host.release()
        assert process.wait(60) == 0
    assert host.snapshot()[NIC]["kernel_driver"] == "e1000e"
    assert host.ledger.records() == []


EXCHANGE = """
import os, sys
from hostdev_core.kernel.sysfs import Sysfs

root = sys.argv[1]
device, other = f"{root}/bus/pci/devices/0000:01:00.0", f"{root}/other"
for folder, text in ((device, "former"), (other, "another card's")):
    os.makedirs(folder)
    with open(f"{folder}/driver_override", "w") as file:
        file.write(text)
inode = os.stat(device).st_ino

def exchange(event, arguments):
    if event == "open" and str(arguments[0]).endswith("driver_override") and os.path.exists(other):
        os.rename(device, f"{root}/gone")
        os.rename(other, device)

sys.addaudithook(exchange)
path = "bus/pci/devices/0000:01:00.0"
Sysfs(root).write(f"{path}/driver_override", "vfio-pci", only=(path, inode))
"""


def test_a_card_that_is_exchanged_during_the_write_is_not_written_to(tmp_path: Path) -> None:
    """The write is below the directory that was looked at, not at a path that may be another's."""
    done = subprocess.run([sys.executable, "-c", EXCHANGE, str(tmp_path)], check=False)
    assert done.returncode == 0
    path = tmp_path / "bus/pci/devices/0000:01:00.0/driver_override"
    assert path.read_text() == "another card's"
    assert (tmp_path / "gone/driver_override").read_text().startswith("vfio-pci")


LOADER = """
import sys
from hostdev_core import Host
from hostdev_core.runtime.operation import Operation

host = Host(sys.argv[1])
with Operation.start(host.state_dir, "prepare vm1") as operation:
    print(operation.id, flush=True)
    host.modules.load("vfio_pci", lock=operation.fd)
"""
MODPROBE = """#!/bin/sh
echo begun > "$HERE/begun"
while [ ! -e "$HERE/go" ]; do sleep 0.05; done
"""


def test_a_load_that_goes_on_keeps_its_operation_alive(tmp_path: Path) -> None:
    """modprobe outlives who started it, and may still change the kernel."""
    program = tmp_path / "bin" / "modprobe"
    program.parent.mkdir()
    program.write_text(MODPROBE)
    program.chmod(0o755)
    state_dir = Host(str(tmp_path)).state_dir
    os.makedirs(state_dir, mode=0o700)
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HERE": str(tmp_path),
    }
    with subprocess.Popen(
        [sys.executable, "-c", LOADER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        operation = process.stdout.readline().strip()
        wait_until(lambda: (tmp_path / "begun").exists())
        process.send_signal(signal.SIGKILL)
        process.wait()
    try:
        assert operations.is_alive(state_dir, operation)
    finally:
        (tmp_path / "go").touch()
    wait_until(lambda: not operations.is_alive(state_dir, operation))
