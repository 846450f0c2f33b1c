"""A backend for another hypervisor, here Cloud Hypervisor, and a round trip on a simulated host."""

import sys
import tempfile
from collections.abc import Sequence

from hostdev_core import (
    Assignment,
    Device,
    Domain,
    HostdevDriver,
    LocalHostdevDriver,
    Registry,
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

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        return ("--device", f"path=/sys/bus/pci/devices/{device.name}/")

    def domain_arguments(self, assignments: Sequence[Assignment]) -> Sequence[str]:
        """It takes one `--device`, with a path for each."""
        paths = [word for each in assignments for word in each.arguments if word != "--device"]
        return ("--device", *paths) if paths else ()


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
            assignments = conn.prepare_hostdevs(Domain("vm1", ["0000:01:00.0", "0000:02:00.0"]))
            print("cloud-hypervisor", *conn.arguments(assignments))
            print("given back:", *conn.reattach_hostdevs("vm1"))
        print("as found:", host.snapshot() == before)


if __name__ == "__main__":
    main()
