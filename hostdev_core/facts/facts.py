"""The facts about a host's devices: what each is called, what the host has of it, and its use.

The keys of a description are those of `--json`; docs/cli.md has them, and they stay. Imports of whole rooms
stand in the functions that need them: `hostdev list` loads no more than it shows.
"""

from hostdev_core.bus.pci import find_maker
from hostdev_core.errors import KernelError
from hostdev_core.facts.class_devices import ClassDevices, read_class_devices
from hostdev_core.facts.hardware_names import Names
from hostdev_core.facts.states import state_of
from hostdev_core.facts.use import Use, describe_owner, describe_use, glance
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.unrecorded import is_unrecorded
from hostdev_core.kernel.sysfs import PCI_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hostdev_core.facts.use import Description
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.device import Device, PCIDevice, USBDevice

Key = tuple[str, str]
_FIRMWARES = (
    0xFFFF  # the last domain that firmware may number (ACPI's _SEG); above are those of drivers
)


class Facts:
    """All that is asked about the devices of one look at a host.

    `inventory`, `names` and `classes` are what was read once. A use is what that look shows, until
    `look_closely` has asked for the users of a device.
    """

    def __init__(
        self, host: "Host", inventory: "Inventory", names: Names, classes: ClassDevices
    ) -> None:
        self.host = host
        self.inventory = inventory
        self.names = names
        self.classes = classes
        self._uses: dict[Key, Use] = {}
        self._children: dict[str, list[str]] = {}
        for device in inventory.usb.values():
            if device.controller is not None:
                self._children.setdefault(device.controller, []).append(device.port)
        for card in inventory.pci.values():
            # Asked of those in such a domain alone, which most hosts have not got.
            maker = _maker(host, card.name) if card.address.domain > _FIRMWARES else None
            if maker is not None:
                self._children.setdefault(maker, []).append(card.name)

    @classmethod
    def of(cls, host: "Host", *, texts: bool = False) -> "Facts":
        """Look at a host, tolerant of what cannot be seen; with `texts` as `inventory.look`."""
        inventory = look(host, tolerant=True, texts=texts)
        classes = read_class_devices(host.sysfs, inventory.by_kind)
        return cls(host, inventory, Names.of(host), classes)

    def children(self, device: "Device") -> "Sequence[str]":
        """The USB devices at a USB controller, the PCI functions that a device's driver has made."""
        return self._children.get(device.name, ()) if device.kind == "pci" else ()

    def use(self, device: "Device") -> Use:
        """The use of a device, as far as it was looked for."""
        return self._use(device, (device.kind, device.name))

    def _use(self, device: "Device", key: Key) -> Use:
        known = self._uses.get(key)
        if known is not None:
            return known
        children = self._children.get(key[1], ())
        return glance(self.host, self.inventory, self.classes, device, key, children)

    def look_closely(
        self,
        devices: "Iterable[Device]",
        overrides: "Mapping[str, str | None] | None" = None,
    ) -> None:
        """Look for the users of these devices: processes, mounts, swap, routes, other programs' overrides.

        `overrides` are the driver_override of PCI devices, where they were read already. It takes some
        time, and without them two seconds more for each device whose lock is kept.
        """
        from hostdev_core.facts.evidence import find_uses

        self._uses |= find_uses(self, [*devices], overrides)

    def numa_node(self, device: "Device") -> int | None:
        """The NUMA node of a PCI device, or of a USB device's controller; None where there is none."""
        name = device.name if device.kind == "pci" else device.controller  # type: ignore[union-attr]
        text = self.host.sysfs.glance(f"{PCI_DEVICES}/{name}/numa_node") if name else None
        return int(text) if text is not None and text.isdecimal() else None

    def describe(self, device: "Device") -> "Description":
        """Describe a device, as a listing shows it."""
        if device.kind == "pci":
            return self._pci(device)  # type: ignore[arg-type]
        return self._usb(device)  # type: ignore[arg-type]

    def _pci(self, device: "PCIDevice") -> "Description":
        key = device.kind, device.name
        ids, code = device.ids, device.class_code
        vendor, name = self.names.pci(ids)
        return {
            "kind": "pci",
            "address": key[1],
            "class": code,
            "class_name": self.names.pci_class(code),
            "ids": ids,
            "vendor_name": vendor,
            "device_name": name,
            "kernel_driver": device.kernel_driver,
            "iommu_group": device.iommu_group,
            "physfn": device.physfn,
            "unrecorded": is_unrecorded(self.inventory, device),
            "unread": device.unread,
            **self._common(device, key),
        }

    def _usb(self, device: "USBDevice") -> "Description":
        key = device.kind, device.port
        vendor, name = self.names.usb(device.ids)
        return {
            "kind": "usb",
            "address": device.port,
            "number": device.number,
            "ids": device.ids,
            "serial": device.serial,
            "label": None if device.unread else device.label,
            "vendor_name": vendor,
            "device_name": name,
            "controller": device.controller,
            "replugged": _replugged(self.inventory, device),
            "unread": device.unread,
            **self._common(device, key),
        }

    def _common(self, device: "Device", key: Key) -> "Description":
        record = self.inventory.record_of_device(key)
        return {
            "net": self.classes.names(key, "net"),
            "block": self.classes.names(key, "block"),
            "drm": self.classes.names(key, "drm"),
            "state": state_of(self.host, self.inventory, record),
            "use": describe_use(self._use(device, key)),
            "used_by": describe_owner(device.used_by),
            "stuck": device.stuck,
        }


def _maker(host: "Host", name: str) -> str | None:
    """The function whose driver has made the domain of a PCI device; None also where that cannot be seen."""
    try:
        return find_maker(host.sysfs, name)
    except KernelError:
        return None


def _replugged(inventory: "Inventory", device: "USBDevice") -> str | None:
    """Say that a USB device came back under another number; None for any other device."""
    if (device.kind, device.port) not in inventory.replugged:
        return None
    from hostdev_core.model.words import replug_words

    return replug_words((inventory.records or {})[device.kind, device.port])


def device_text(described: "Description") -> str:
    """Name a device for people, as far as its vendor and model are known."""
    known = " ".join(word for word in (described["vendor_name"], described["device_name"]) if word)
    # The label that a device gives itself only where usb.ids does not know it.
    if described["kind"] == "usb" and described["label"] and not described["device_name"]:
        known = described["label"]
    if described["unread"]:
        silent = "does not answer" if described["kind"] == "usb" else "cannot be seen"
        known = f"{known} ({silent})".strip()
    return known
