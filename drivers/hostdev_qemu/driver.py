"""The hostdev driver for QEMU."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from hostdev_core import (
    Connection,
    Host,
    LocalHostdevDriver,
    OpenResult,
    PCIDevice,
    USBDevice,
    is_vfio_driver,
)


class QemuDriver(LocalHostdevDriver):
    """vfio-pci by default; a variant driver where the kernel has one; pci-stub on request."""

    name = "qemu"
    uri_schemes = ("qemu",)
    stubs = ("vfio-pci", "pci-stub")

    def default_uri(self, host: Host) -> str | None:
        return "qemu:///system"

    def open_backend(self, conn: Connection) -> OpenResult:
        parts = urlsplit(conn.uri)
        return (
            OpenResult.SUCCESS
            if (parts.netloc, parts.path) == ("", "/system")
            else OpenResult.DECLINED
        )

    def choose_stub(self, host: Host, device: PCIDevice) -> str:
        return host.modules.vfio_variant(device.modalias) or self.stubs[0]

    def accepts_stub(self, kernel_driver: str) -> bool:
        return kernel_driver in self.stubs or is_vfio_driver(kernel_driver)

    def arguments(self, device: PCIDevice | USBDevice, node: str | None) -> Sequence[str]:
        if isinstance(device, USBDevice):
            return ("-device", f"usb-host,hostbus={device.bus},hostaddr={device.device}")
        return ("-device", f"vfio-pci,host={device.address}")
