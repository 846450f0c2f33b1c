"""A backend for another hypervisor, here Cloud Hypervisor, and a round trip on a simulated host."""

import sys
import tempfile
from collections.abc import Sequence

from hostdev_core import (
    Domain,
    HostdevDriver,
    LocalHostdevDriver,
    PCIDevice,
    Registry,
    USBDevice,
    hookimpl,
    open_connection,
)
from hostdev_core.testing import make_sample


class CloudHypervisorDriver(LocalHostdevDriver):
    """Cloud Hypervisor takes PCI devices on vfio-pci, by their path in sysfs."""

    name = "ch"
    uri_schemes = ("ch",)
    stubs = ("vfio-pci",)
    takes_usb = False

    def arguments(self, device: PCIDevice | USBDevice, node: str | None) -> Sequence[str]:
        return ("--device", f"path=/sys/bus/pci/devices/{device.name}/")


@hookimpl
def hostdev_drivers() -> list[HostdevDriver]:
    """What the plugin brings; its pyproject.toml has `[project.entry-points.hostdev]`."""
    return [CloudHypervisorDriver()]


def main() -> None:
    """Lend a device and take it back, by way of the new backend."""
    registry = Registry()
    registry.register(sys.modules[__name__], name="ch")
    with tempfile.TemporaryDirectory() as folder:
        host = make_sample(f"{folder}/host")
        before = host.snapshot()
        with open_connection("ch:///system", host=host, registry=registry) as conn:
            (assignment,) = conn.prepare_hostdevs(Domain("vm1", ["0000:01:00.0"]))
            print("cloud-hypervisor", *assignment.arguments)
            print("given back:", *conn.reattach_hostdevs("vm1"))
        print("as found:", host.snapshot() == before)


if __name__ == "__main__":
    main()
