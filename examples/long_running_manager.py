"""A manager that runs for long: it may be killed at any moment, and devices may vanish meanwhile.

long_running_manager.py URI vm1=01:00.0,1-3 ...    until it is killed; each machine has its devices
long_running_manager.py                            a short life of it, on a simulated host

Nothing needs to be stored: hostdev's record says who has what, and outlives the manager. When it
starts, it clears up what was half done, releases what is gone, and takes up its machines again.
"""

import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

from hostdev_core import (
    Connection,
    Domain,
    Drift,
    HostdevError,
    PCIHostdev,
    PrepareFlags,
    ReattachError,
    open_connection,
    parse_hostdev,
)
from hostdev_core.testing import SimulatedHost, make_sample


class Manager:
    """Lends devices to its machines, and follows what becomes of them."""

    def __init__(self, conn: Connection, machines: Mapping[str, Sequence[str]]) -> None:
        self.conn = conn
        self.machines = machines
        self.told: set[Drift] = set()

    def run(self) -> None:
        """Take up the machines, then follow the events of their devices, for ever."""
        events = self.conn.host.udev.events("pci", "usb")  # first: what happens meanwhile waits
        self.clear_up()
        for name in self.machines:
            self.start(name)
        for _ in events:
            self.look()

    def clear_up(self) -> None:
        """Undo or finish what an earlier life left half done; end what is no machine any more."""
        try:
            for address in self.conn.recover():
                print(f"{address}: recovered", flush=True)
        except ReattachError as error:
            print(f"stuck, see `hostdev status`: {error}", flush=True)
        self.look()
        for name in sorted({*self.owners().values()} - {*self.machines}):
            print(f"{name} is gone: {self.conn.reattach_hostdevs(name)} given back", flush=True)

    def start(self, name: str) -> None:
        """Lend a machine what it has not yet, and start its hypervisor, if that is not running."""
        domain = Domain(name, self.machines[name])
        try:
            assignments = self.conn.prepare_hostdevs(domain, PrepareFlags.ALLOW_SAME_OWNER)
        except HostdevError as error:
            print(f"{name} is not started: {error}", flush=True)
        else:
            has = [assignment.device.name for assignment in assignments if assignment.device]
            print(f"{name} has {', '.join(has)}", flush=True)

    def look(self) -> None:
        """See which of the lent devices are not what they were, and tell of each once."""
        found = {*self.conn.reload()}
        for drift in sorted(found - self.told):
            self.follow(drift)
        self.told = found

    def follow(self, drift: Drift) -> None:
        """A device that is gone or replaced has no machine any more; a rebound one is left alone."""
        owner = self.owners().get(drift.address)
        if owner is None or drift.what == "rebound":
            print(f"{drift}; somebody must see to that", flush=True)
            return
        hostdev = parse_hostdev(drift.address)
        if isinstance(hostdev, PCIHostdev):
            self.conn.reattach_pci_hostdevs(owner, [hostdev])
        else:
            self.conn.reattach_usb_hostdevs(owner, [hostdev])
        print(f"{drift.address} is {drift.what}; released from {owner}", flush=True)

    def owners(self) -> dict[str, str]:
        """Which machine of this driver has which device."""
        active = self.conn.get_active_pci_hostdev_list(), self.conn.get_active_usb_hostdev_list()
        mine = self.conn.hostdev_driver.name if self.conn.hostdev_driver else None
        devices = [device for devices in active for device in devices]
        return {d.name: d.used_by.domain for d in devices if d.used_by and d.used_by.driver == mine}


def demonstrate(host: SimulatedHost) -> None:
    """Kill the manager twice and take devices away, before and while it runs."""
    host.on_write("*/vfio-pci/bind", hang=True)
    with life(host, "vm1=01:00.0,02:00.0"):
        host.wait_hanging(timeout=60)
        print("- killed in the middle of a prepare")
    host.release()
    with life(host, "vm1=01:00.0,02:00.0", "vm2=1-3") as said:
        print(next(said), next(said), next(said), next(said), sep="\n")
        print("- killed; before the next start, a card is pulled out")
    host.unplug("0000:02:00.0")
    with life(host, "vm1=01:00.0", "vm2=1-3") as said:
        print(next(said), next(said), next(said), sep="\n")
        print("- the USB stick is pulled out, the other card is unbound by hand")
        host.unplug("1-3")
        print(next(said))
        host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", "0000:01:00.0")
        print(next(said))


@contextmanager
def life(host: SimulatedHost, *machines: str) -> Generator[Iterator[str]]:
    """A manager in a process of its own, killed at the end; what it says, line by line."""
    command = [sys.executable, __file__, f"test://{host.root}", *machines]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield (line.rstrip("\n") for line in process.stdout)
        finally:
            process.kill()


def main(uri: str, *machines: str) -> None:
    """Manage machines that are given as vm1=01:00.0,1-3."""
    wanted = {name: devices.split(",") for name, _, devices in (m.partition("=") for m in machines)}
    try:
        with open_connection(uri) as conn:
            Manager(conn, wanted).run()
    except HostdevError as error:
        sys.exit(f"{sys.argv[0]}: {error}")


if __name__ == "__main__":
    if sys.argv[1:]:
        main(*sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            demonstrate(make_sample(f"{folder}/host"))
