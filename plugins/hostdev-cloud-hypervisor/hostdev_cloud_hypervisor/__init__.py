"""Cloud Hypervisor: PCI devices on vfio-pci; `ch:///system`.

with open_connection("ch:///system") as conn:
    assignments = conn.prepare_hostdevs(Domain("vm1", ["0000:01:00.0", "0000:02:00.0"]))
    subprocess.run(["cloud-hypervisor", ..., *conn.arguments(assignments)])
"""

from hostdev_cloud_hypervisor.driver import CloudHypervisorDriver as CloudHypervisorDriver
from hostdev_cloud_hypervisor.words import api_device as api_device
from hostdev_cloud_hypervisor.words import command_line as command_line
from hostdev_core import HostdevDriver, hookimpl

__all__ = ["CloudHypervisorDriver", "api_device", "command_line", "hostdev_drivers"]


@hookimpl
def hostdev_drivers() -> list[HostdevDriver]:
    """The row for Cloud Hypervisor."""
    return [CloudHypervisorDriver()]
