"""The hostdev driver for QEMU."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from hostdev_core import (
    Connection,
    Device,
    Host,
    LocalHostdevDriver,
    OpenResult,
    PCIDevice,
    USBDevice,
    USBSelector,
    is_vfio_driver,
)

# `host=` takes PCI domains up to here (set_pci_host_devaddr in hw/core/qdev-properties-system.c).
LAST_DOMAIN = 0xFFFF


class QemuDriver(LocalHostdevDriver):
    """vfio-pci by default; a variant driver where the kernel has one; pci-stub to detach only."""

    name = "qemu"
    uri_schemes = ("qemu",)
    uris = ("qemu:///system",)
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

    def is_guest_stub(self, kernel_driver: str) -> bool:
        """pci-stub keeps a device from the host, but has nothing that QEMU could open."""
        return is_vfio_driver(kernel_driver)

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        if isinstance(device, USBDevice):
            return ("-device", f"usb-host,{_usb_match(device)}")
        if node is not None and node.rpartition("/")[2].startswith("noiommu-"):
            return ()  # QEMU wants an IOMMU of a type that it knows (hw/vfio/container.c)
        if device.address.domain > LAST_DOMAIN:  # as of devices behind Intel's VMD
            return ("-device", f"vfio-pci,sysfsdev=/sys/bus/pci/devices/{device.address}")
        return ("-device", f"vfio-pci,host={device.address}")


def _usb_match(device: USBDevice) -> str:
    """Name a USB device for QEMU: by its port, its ids or its number, as the request did.

    QEMU takes the first device that fits all of it (usb_host_auto_check in its hw/usb/host-libusb.c),
    also one that is plugged in again. It knows no serial numbers: for one of these the port is named.
    """
    asked = device.asked or USBSelector(bus=device.bus, device=device.device)
    by_ids = asked.vendor is not None or asked.product is not None
    words: list[str] = []
    if asked.port is not None or asked.serial is not None:
        words += [f"hostbus={device.bus}", f"hostport={device.port.partition('-')[2]}"]
    elif asked.device is not None or not by_ids:
        words += [f"hostbus={device.bus}", f"hostaddr={device.device}"]
    elif asked.bus is not None:
        words += [f"hostbus={device.bus}"]
    if by_ids:
        words += [f"vendorid=0x{device.vendor}", f"productid=0x{device.product}"]
    return ",".join(words)
