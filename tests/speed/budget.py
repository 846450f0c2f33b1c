"""Count what a call costs: `python -m tests.speed.budget DEVICES RECORDS CARDS` prints it as JSON.

The unit is the call and c_call events of sys.setprofile, of all threads: the same on every machine, whatever
else it does. What simulates the kernel is not counted, and only the shipped drivers are loaded. The host has
`DEVICES` PCI devices, its ledger `RECORDS` records of another domain; `CARDS` devices are lent and returned.
"""

import gc
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import hostdev_core.simulated
import hostdev_libxl
import hostdev_qemu
import hostdev_test
from hostdev_core import Domain, Registry, open_connection
from hostdev_core.simulated import SimulatedHost
from tests.helpers.many_records import fill

NOT_COUNTED = str(Path(hostdev_core.simulated.__file__).parent)


class Counter:
    """Counts calls in the thread it is told of, but for those of the simulated kernel and below it."""

    def __init__(self) -> None:
        self.calls = 0
        self._here = threading.local()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        inside: int = getattr(self._here, "inside", 0)
        if event == "call" and (inside or frame.f_code.co_filename.startswith(NOT_COUNTED)):
            self._here.inside = inside + 1
        elif event == "return" and inside:
            self._here.inside = inside - 1
        elif event in {"call", "c_call"} and not inside:
            self.calls += 1


@contextmanager
def counted() -> Generator[Counter]:
    """Count the calls in the block, of this thread and of those that begin in it."""
    counter = Counter()
    gc.disable()  # a finalizer runs when it likes
    threading.setprofile(counter)
    sys.setprofile(counter)
    try:
        yield counter
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as its documentation has it
        gc.enable()


def make_host(folder: Path, devices: int, records: int) -> tuple[SimulatedHost, list[str]]:
    """Make the host and its ledger; returns it with the addresses of its devices."""
    host = SimulatedHost.create(folder)
    names = [f"0000:{1 + i // 32:02x}:{i % 32:02x}.0" for i in range(devices)]
    for number, name in enumerate(names, 1):
        host.add_pci(name, kernel_driver="e1000e", iommu_group=number)
    fill(host.ledger, records)
    return host, names


def shipped() -> Registry:
    """A registry of the shipped drivers alone."""
    registry = Registry()
    for plugin in (hostdev_qemu, hostdev_libxl, hostdev_test):
        registry.register(plugin, name=plugin.__name__)
    return registry


def measure(devices: int, records: int, cards: int) -> dict[str, int]:
    """Count a prepare, a plan of it, a reattach, and a look at what the domain has."""
    with tempfile.TemporaryDirectory() as folder:
        host, names = make_host(Path(folder) / "host", devices, records)
        domain = Domain("vm1", names[:cards])
        with open_connection("qemu:///system", host=host, registry=shipped()) as conn:
            calls: dict[str, Callable[[], object]] = {
                "plan": lambda: conn.plan(domain),
                "prepare": lambda: conn.prepare_hostdevs(domain),
                "status": lambda: conn.get_domain_active_pci_hostdev_list("vm1"),
                "reattach": lambda: conn.reattach_hostdevs("vm1"),
            }
            for call in calls.values():  # modules are imported, and loaded into the kernel
                call()
            found: dict[str, int] = {}
            for name, call in calls.items():
                with counted() as counter:
                    call()
                found[name] = counter.calls
    return found


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:4]))))
