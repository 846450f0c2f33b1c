"""The hostdev driver for Xen's libxl.

Binding a device to pciback adds a slot by itself, which survives the unbind and would seize the next
device at that address, where no driver that was loaded earlier wants it (drivers/xen/xen-pciback/
pci_stub.c in the kernel); `xl` keeps a device's former driver in xenstore. Both are extra steps here.
"""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from hostdev_core import (
    Assignment,
    BackendStep,
    Connection,
    Device,
    DeviceInUseError,
    Host,
    LocalHostdevDriver,
    NotAssignableError,
    OpenError,
    OpenResult,
    PCIDevice,
    StateError,
    USBDevice,
)

PCI_DEVICES = "bus/pci/devices"
PCIBACK = "bus/pci/drivers/pciback"
PROBE = "bus/pci/drivers_probe"
BACKENDS = "/local/domain/0/backend/pci"


class LibxlDriver(LocalHostdevDriver):
    """pciback; `xl` sees the device as assignable, and a running guest keeps it."""

    name = "libxl"
    uri_schemes = ("xen",)
    uris = ("xen:///system",)
    stubs = ("pciback",)
    stub_modules = {"pciback": "xen-pciback"}
    needs_iommu = False  # Xen has the IOMMU itself: its dom0 sees no groups

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
        key = _key(device.name, "driver_path")
        if host.xenstore.read(key) is None:  # neither xl nor hostdev has it
            return
        if _is_assigned_by_xl(host, device):
            raise NotAssignableError(
                f"{device.name} was made assignable by xl ({key}); `xl pci-assignable-remove"
                f" {device.name}` hands it over",
                device=device.name,
            )
        raise NotAssignableError(
            f"{device.name} was lent under a ledger that was lost, or made assignable by xl ({key});"
            f" `hostdev device reattach --to-host {device.name}` gives it to the host's own driver",
            device=device.name,
        )

    def holders(self, host: Host, device: PCIDevice) -> Sequence[str]:
        return _guests_with(host, device.name)

    def extra_steps(self, host: Host, device: PCIDevice) -> Iterator[BackendStep]:
        if device.kernel_driver != "pciback" and device.name not in _slots(host):
            yield BackendStep("slot", device.name)  # for its undo: the bind adds the slot by itself
        if device.kernel_driver not in {None, "pciback"}:
            yield BackendStep(
                "driver_path", device.name, (f"/sys/bus/pci/drivers/{device.kernel_driver}",)
            )

    def run_step(self, host: Host, step: BackendStep) -> None:
        if step.name == "driver_path":  # "slot" has nothing to do: the slot came with the bind
            host.xenstore.write(_key(step.device, "driver_path"), *step.arguments)

    def undo_step(self, host: Host, step: BackendStep) -> None:
        if step.name == "driver_path":
            _forget(host, step.device)
        elif step.device in _slots(host):
            host.sysfs.write(f"{PCIBACK}/remove_slot", step.device)
            if step.device in _slots(host):
                raise StateError(f"{step.device} is still among pciback's slots after remove_slot")

    def forget_step(self, host: Host, step: BackendStep) -> None:
        if step.name == "driver_path":
            if host.xenstore.read(_key(step.device, "driver_path")) in {None, *step.arguments}:
                _forget(host, step.device)
            return
        had_slot = step.device in _slots(host)
        _check_seized(host, step.device)
        self.undo_step(host, step)  # from here on the slot seizes no device
        _set_free(host, step.device, was_begun=not had_slot)

    def leftover_steps(self, host: Host, device: PCIDevice) -> Iterator[BackendStep]:
        """Find the slot and the key; StateError for a device that xl made assignable.

        A slot alone of a device on a host driver is not hostdev's: it leaves both.
        """
        key = _key(device.name, "driver_path")
        former = host.xenstore.read(key) if host.is_dom0 else None
        if former is not None and _is_assigned_by_xl(host, device):
            raise StateError(
                f"{device.name} was made assignable by xl ({key}), and Xen may keep it in quarantine;"
                f" `xl pci-assignable-remove -r {device.name}` gives it to the host's own driver"
            )
        is_bound = device.kernel_driver not in {None, "pciback"}
        if device.name in _slots(host) and (former is not None or not is_bound):
            yield BackendStep("slot", device.name)
        if former is not None:
            yield BackendStep("driver_path", device.name, (former,))

    def found_on(self, host: Host, device: PCIDevice) -> str | None:
        return _former(host, device) if host.is_dom0 else None

    def spec(self, device: Device) -> str:
        """A device's entry in the domain's `pci` or `usbdev` list (xl.cfg(5)).

        For a subclass to add options to: `f"{super().spec(device)},permissive=1"`.
        """
        if isinstance(device, USBDevice):
            return f"hostbus={device.bus},hostaddr={device.device}"
        return str(device.address)

    def arguments(self, device: Device, node: str | None) -> Sequence[str]:
        return self._lists([device])

    def domain_arguments(self, assignments: Sequence[Assignment]) -> Sequence[str]:
        """Make one list for all devices of a kind: of two lines `pci=[...]` xl takes the last."""
        return self._lists([each.device for each in assignments if each.device is not None])

    def _lists(self, devices: Sequence[Device]) -> tuple[str, ...]:
        lists = {"pci": "pci", "usb": "usbdev"}
        words: list[str] = []
        for kind, name in lists.items():
            specs = [f"'{self.spec(device)}'" for device in devices if device.kind == kind]
            words += [f"{name}=[{', '.join(specs)}]"] if specs else []
        return tuple(words)


def _key(address: str, name: str) -> str:
    """Make libxl's key for a device, "/libxl/pci/0000-01-00-0/driver_path"."""
    return f"/libxl/pci/{address.replace(':', '-').replace('.', '-')}/{name}"


def _forget(host: Host, address: str) -> None:
    """Remove the former driver's key, and the device's own when nothing else is in it."""
    host.xenstore.remove(_key(address, "driver_path"))
    device = _key(address, "").rstrip("/")
    if not host.xenstore.children(device):  # other keys are xl's
        host.xenstore.remove(device)


def _former(host: Host, device: PCIDevice) -> str | None:
    """Read the former driver's name from the key."""
    path = host.xenstore.read(_key(device.name, "driver_path")) or ""
    return path.rpartition("/")[2] or None


def _is_assigned_by_xl(host: Host, device: PCIDevice) -> bool:
    """Tell whether xl put a device with a key on pciback: xl binds by a slot, hostdev by an override.

    While hostdev gives a device back its driver_override names the former driver. xl may also have put the
    device into Xen's quarantine, out of which xl alone takes it.
    """
    override = host.sysfs.read(f"{PCI_DEVICES}/{device.name}/driver_override")
    ours = {"pciback", _former(host, device)} - {None}
    return device.kernel_driver == "pciback" and override not in ours


def _slots(host: Host) -> list[str]:
    return (host.sysfs.read(f"{PCIBACK}/slots") or "").split()


def _check_seized(host: Host, address: str) -> None:
    """Raise for a card that is on pciback for another reason than our slot: a guest, xl, or an override."""
    folder, key = f"{PCI_DEVICES}/{address}", _key(address, "driver_path")
    if host.sysfs.link(f"{folder}/driver") != "pciback":
        return
    other = f"{address} is another card by now, on pciback"
    if guests := _guests_with(host, address):
        raise DeviceInUseError(
            f"{other}, and {', '.join(guests)} has it; end it, or take the card from it, first",
            device=address,
            holders=guests,
        )
    if host.xenstore.read(key) is not None:
        raise StateError(
            f"{other}, and xl made it assignable ({key}); `xl pci-assignable-remove {address}` first"
        )
    if host.sysfs.read(f"{folder}/driver_override") == "pciback":
        raise StateError(
            f"{other} by a driver_override that hostdev did not set; clear that, or accept it with"
            f" `hostdev device forget {address} --as-is`"
        )


def _set_free(host: Host, address: str, *, was_begun: bool) -> None:
    """Let the kernel find the driver of a card that our slot seized, as it does without a slot.

    `was_begun`: an earlier process removed the slot, and may have died between the unbind and the probe.
    """
    folder = f"{PCI_DEVICES}/{address}"
    inode = host.sysfs.inode(folder)
    if inode is None:  # the card is gone: the kernel has nothing to find
        return
    # With the inode: a card that is exchanged in between gets none of these writes.
    driver, mine = host.sysfs.link(f"{folder}/driver"), (folder, inode)
    if driver == "pciback":
        _check_seized(host, address)
        host.sysfs.write(f"{PCIBACK}/unbind", address, only=mine)
        if host.sysfs.link(f"{folder}/driver") == "pciback":
            raise StateError(f"{address} is still on pciback after its unbind")
    if driver == "pciback" or (driver is None and was_begun):
        host.sysfs.write(PROBE, address, only=mine)


def _guests_with(host: Host, address: str) -> list[str]:
    return [
        f"Xen domain {host.xenstore.read(f'/local/domain/{domain}/name') or '?'} (id {domain})"
        for domain in _domains_with(host, address)
    ]


def _domains_with(host: Host, address: str) -> Iterator[str]:
    """Find the ids of the guests that have a device, by the keys of pciback's backends.

    A backend's keys can outlive its domain: one that is gone holds nothing.
    """
    store = host.xenstore
    for domain in store.children(BACKENDS):
        if store.read(f"/local/domain/{domain}/name") is None:
            continue
        for backend in store.children(f"{BACKENDS}/{domain}"):
            path = f"{BACKENDS}/{domain}/{backend}"
            numbers = [name[4:] for name in store.children(path) if name.startswith("dev-")]
            if any(store.read(f"{path}/dev-{number}") == address for number in numbers):
                yield domain
