"""The hostdev driver for Cloud Hypervisor.

What it takes, by its documentation (docs/vfio.md): PCI devices only, bound to a VFIO driver, named
by their directory in sysfs. The URI is that of libvirt's driver for it (libvirt.org/drvch.html).
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from hostdev_cloud_hypervisor.words import argument, command_line
from hostdev_core import (
    Assignment,
    Connection,
    Device,
    Host,
    InvalidURIError,
    LocalHostdevDriver,
    OpenResult,
    PCIDevice,
    is_vfio_driver,
)


class CloudHypervisorDriver(LocalHostdevDriver):
    """vfio-pci, or a variant driver where the kernel has one; no USB devices."""

    name = "ch"
    uri_schemes = ("ch",)
    uris = ("ch:///system",)
    stubs = ("vfio-pci",)
    takes_usb = False

    def open_backend(self, conn: Connection) -> OpenResult:
        """Refuse every other URI, libvirt's ch:///session too: only root binds drivers."""
        parts = urlsplit(conn.uri)
        if (parts.netloc, parts.path) != ("", "/system"):
            raise InvalidURIError(
                f"{conn.uri!r} is no URI for Cloud Hypervisor's devices; wanted ch:///system: they"
                " are lent by root, for the whole machine"
            )
        return OpenResult.SUCCESS

    def choose_stub(self, host: Host, device: PCIDevice) -> str:
        return host.modules.vfio_variant(device.modalias) or self.stubs[0]

    def accepts_stub(self, kernel_driver: str) -> bool:
        """vfio-pci and its variants (mlx5_vfio_pci, ...), not pci-stub, which has no VFIO device."""
        return is_vfio_driver(kernel_driver)

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        if node is not None and node.rpartition("/")[2].startswith("noiommu-"):
            return ()  # it wants an IOMMU
        return ("--device", argument(device))

    def domain_arguments(self, assignments: Sequence[Assignment]) -> Sequence[str]:
        """One `--device` for all: a second one is an error since version 36."""
        return command_line(each for each in assignments if each.arguments)
