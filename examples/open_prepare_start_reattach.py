"""Lend devices to a virtual machine, run it, take them back.

open_prepare_start_reattach.py 0000:01:00.0 ...   this machine's devices; end QEMU with "quit"
open_prepare_start_reattach.py                    two devices of a simulated host
"""

import shlex
import subprocess
import sys
import tempfile
from contextlib import ExitStack

from hostdev_core import Assignment, Connection, Domain, Host, PrepareFlags, open_connection
from hostdev_core.testing import SimulatedHost, make_sample

QEMU = ["qemu-system-x86_64", "-S", "-nographic", "-serial", "none", "-monitor", "stdio"]


def lend_and_run(host: Host, hostdevs: list[str]) -> None:
    """The way of every caller: open, prepare, start, reattach, close."""
    domain = Domain("example", hostdevs)
    with open_connection("qemu:///system", host=host) as conn:
        assignments = conn.prepare_hostdevs(domain, PrepareFlags.COLD_BOOT)
        try:
            run(conn, assignments)
        finally:
            print("given back:", *conn.reattach_hostdevs(domain))


def run(conn: Connection, assignments: tuple[Assignment, ...]) -> None:
    """Run the machine to its end; a simulated host has no devices that a real QEMU could open."""
    command = [*QEMU, *conn.arguments(assignments)]
    print("start:", shlex.join(command), flush=True)
    for device in conn.get_domain_active_pci_hostdev_list("example"):
        print(f"{device.name} is on {device.kernel_driver}, with {device.used_by}")
    if isinstance(conn.host, SimulatedHost):
        hold_as_qemu_would(conn.host, assignments)
    else:
        subprocess.run(command, check=True)


def hold_as_qemu_would(host: SimulatedHost, assignments: tuple[Assignment, ...]) -> None:
    """Open the VFIO groups, and close them at once."""
    with ExitStack() as stack:
        for assignment in assignments:
            if assignment.device is not None and assignment.device.kind == "pci":
                stack.enter_context(host.hold(assignment.device.name))
                print("held:", assignment.node)


if __name__ == "__main__":
    if sys.argv[1:]:
        lend_and_run(Host(), sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            lend_and_run(make_sample(f"{folder}/host"), ["01:00.0", "1-3"])
