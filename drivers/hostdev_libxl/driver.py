"""The hostdev driver for Xen's libxl.

Binding a device to pciback adds a slot by itself, which survives the unbind and would seize the next
device at that address; `xl` keeps a device's former driver in xenstore. Both are extra steps here.
"""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from hostdev_core import (
    BackendStep,
    Connection,
    Host,
    LocalHostdevDriver,
    NotAssignableError,
    OpenError,
    OpenResult,
    PCIDevice,
    StateError,
    USBDevice,
)

PCIBACK = "bus/pci/drivers/pciback"
BACKENDS = "/local/domain/0/backend/pci"


class LibxlDriver(LocalHostdevDriver):
    """pciback; `xl` sees the device as assignable, and a running guest keeps it."""

    name = "libxl"
    uri_schemes = ("xen",)
    stubs = ("pciback",)
    stub_modules = {"pciback": "xen-pciback"}
    needs_iommu = False

    def default_uri(self, host: Host) -> str | None:
        return "xen:///system" if host.is_dom0 else None

    def open_backend(self, conn: Connection) -> OpenResult:
        parts = urlsplit(conn.uri)
        if (parts.netloc, parts.path) != ("", "/system"):
            return OpenResult.DECLINED
        if not conn.host.is_dom0:
            raise OpenError(
                "this is no Xen dom0 (/proc/xen/capabilities has no control_d); boot Xen, or mount xenfs",
                driver=self.name,
                uri=conn.uri,
            )
        return OpenResult.SUCCESS

    def check_device(self, host: Host, device: PCIDevice) -> None:
        key = _driver_path(device)
        if host.xenstore.read(key) is not None:
            raise NotAssignableError(
                f"{device.name} was made assignable by xl ({key}); `xl pci-assignable-remove"
                f" {device.name}` hands it over",
                device=device.name,
            )

    def holders(self, host: Host, device: PCIDevice) -> Sequence[str]:
        return [
            f"Xen domain {host.xenstore.read(f'/local/domain/{domain}/name') or '?'} (id {domain})"
            for domain in _domains_with(host, device)
        ]

    def extra_steps(self, host: Host, device: PCIDevice) -> Iterator[BackendStep]:
        if device.name not in _slots(host):
            yield BackendStep("slot", device.name)
        if device.kernel_driver not in {None, "pciback"}:
            yield BackendStep(
                "driver_path", device.name, (f"/sys/bus/pci/drivers/{device.kernel_driver}",)
            )

    def run_step(self, host: Host, step: BackendStep) -> None:
        if step.name == "driver_path":  # the slot came with the bind
            host.xenstore.write(_key(step.device, "driver_path"), *step.arguments)

    def undo_step(self, host: Host, step: BackendStep) -> None:
        if step.name == "driver_path":
            _forget(host, step.device)
        elif step.device in _slots(host):
            host.sysfs.write(f"{PCIBACK}/remove_slot", step.device)
            if step.device in _slots(host):
                raise StateError(f"{step.device} is still among pciback's slots after remove_slot")

    def arguments(self, device: PCIDevice | USBDevice, node: str | None) -> Sequence[str]:
        if isinstance(device, USBDevice):
            return (f"usbdev=['hostbus={device.bus},hostaddr={device.device}']",)
        return (f"pci=['{device.address}']",)


def _key(address: str, name: str) -> str:
    """libxl's key for a device, "/libxl/pci/0000-01-00-0/driver_path"."""
    return f"/libxl/pci/{address.replace(':', '-').replace('.', '-')}/{name}"


def _forget(host: Host, address: str) -> None:
    """Remove the former driver's key, and the device's own when nothing else is in it."""
    host.xenstore.remove(_key(address, "driver_path"))
    device = _key(address, "").rstrip("/")
    if not host.xenstore.children(device):
        host.xenstore.remove(device)


def _driver_path(device: PCIDevice) -> str:
    return _key(device.name, "driver_path")


def _slots(host: Host) -> list[str]:
    return (host.sysfs.read(f"{PCIBACK}/slots") or "").split()


def _domains_with(host: Host, device: PCIDevice) -> Iterator[str]:
    """The ids of the guests that have a device, by the keys of pciback's backends.

    A backend's keys can outlive its domain: one that is gone holds nothing.
    """
    store = host.xenstore
    for domain in store.children(BACKENDS):
        if store.read(f"/local/domain/{domain}/name") is None:
            continue
        for backend in store.children(f"{BACKENDS}/{domain}"):
            path = f"{BACKENDS}/{domain}/{backend}"
            numbers = [name[4:] for name in store.children(path) if name.startswith("dev-")]
            if any(store.read(f"{path}/dev-{number}") == device.name for number in numbers):
                yield domain
