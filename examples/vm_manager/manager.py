"""A small manager of virtual machines: each has devices of the host for as long as it runs.

Its tests, without hardware, stand beside it: test_manager.py.
"""

import subprocess
from collections.abc import Sequence

from hostdev_core import Connection, Domain, PrepareFlags

QEMU = ("qemu-system-x86_64", "-enable-kvm", "-m", "4096", "-display", "none")


class Manager:
    """Starts and stops machines by name.

    It is given its connection, so its tests give it one to a simulated host; and the command of its
    hypervisor. What it does not remember after a restart, hostdev does.
    """

    def __init__(self, conn: Connection, hypervisor: Sequence[str] = QEMU) -> None:
        self.conn = conn
        self.hypervisor = hypervisor
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, hostdevs: Sequence[str]) -> None:
        """Lend the devices and start the machine with them; if it does not start, take them back."""
        if name in self.running:
            raise ValueError(f"machine {name} runs already")
        assignments = self.conn.prepare_hostdevs(Domain(name, hostdevs), PrepareFlags.COLD_BOOT)
        try:
            words = self.conn.arguments(assignments)
            self.running[name] = subprocess.Popen([*self.hypervisor, "-name", name, *words])
        except BaseException:
            self.conn.reattach_hostdevs(name)
            raise

    def stop(self, name: str) -> tuple[str, ...]:
        """End the machine, then take back all that it has; what was taken back.

        Only then: a device that a process has open is not taken away from it.
        """
        process = self.running.pop(name, None)
        if process is not None:
            process.terminate()
            process.wait()
        return self.conn.reattach_hostdevs(name)

    def collect(self) -> None:
        """Take back what machines have that ended by themselves."""
        for name in [name for name, process in self.running.items() if process.poll() is not None]:
            self.stop(name)

    def devices(self, name: str) -> list[str]:
        """What a machine has now."""
        pci = self.conn.get_domain_active_pci_hostdev_list(name)
        usb = self.conn.get_domain_active_usb_hostdev_list(name)
        return [*(device.name for device in pci), *(device.name for device in usb)]
