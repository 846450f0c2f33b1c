"""`hostdev list`: all devices and their users. Opens no connection and loads no plugin."""

from hostdev_core.cli.descriptions import (
    absent_text,
    describe_absent,
    describe_pci,
    describe_usb,
    device_text,
    state_text,
)
from hostdev_core.cli.hardware_names import Names
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit_json, print_error, table
from hostdev_core.errors import KernelError
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.unrecorded import Unrecorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.cli.descriptions import Description
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory

HEADERS = ("ADDRESS", "CLASS", "IDS", "DEVICE", "DRIVER", "GROUP", "STATE")


def run(options: Options) -> int:
    """Print all devices."""
    host = open_host(options)
    inventory = look(host, tolerant=True, texts=True)
    devices = describe_devices(host, inventory)
    if options.json:
        emit_json(_document(host, inventory, devices))
    elif options.groups:
        table(HEADERS, _groups(devices))
    else:
        table(HEADERS, [("", [_row(device) for device in devices])])
    if not options.json:
        _remarks(host, inventory, devices)
    return 0


def describe_devices(host: "Host", inventory: "Inventory") -> "list[Description]":
    """Describe every device of the host, PCI first."""
    names = Names.of(host)
    return [
        *(describe_pci(host, inventory, names, device) for device in inventory.pci.values()),
        *(describe_usb(host, inventory, names, device) for device in inventory.usb.values()),
    ]


def _document(host: "Host", inventory: "Inventory", devices: "list[Description]") -> "Description":
    return {
        "devices": devices,
        "absent": [describe_absent(host, inventory, record) for record in inventory.absent],
        "ledger_error": inventory.unread,
    }


def _row(device: "Description") -> "list[str]":
    driver, group = device.get("kernel_driver"), device.get("iommu_group")
    if device["kind"] == "pci":
        kind = device["class_name"] or f"class {device['class']}"
    else:
        kind = f"USB {device['number']}"
    name = device_text(device) or "-"
    numbers = [driver or "-", "-" if group is None else str(group)]
    return [device["address"], kind, device["ids"], name, *numbers, state_text(device)]


def _groups(devices: "list[Description]") -> "list[tuple[str, list[list[str]]]]":
    # By rank and number: IOMMU groups come first, then PCI devices without one, then USB.
    groups: dict[tuple[int, int], list[list[str]]] = {}
    for device in devices:
        number = device.get("iommu_group")
        key = (0, number) if number is not None else (1 if device["kind"] == "pci" else 2, 0)
        groups.setdefault(key, []).append(_row(device))
    titles = {1: "no IOMMU group", 2: "USB"}
    return [
        (titles.get(rank, f"IOMMU group {number}"), rows)
        for (rank, number), rows in sorted(groups.items())
    ]


def _remarks(host: "Host", inventory: "Inventory", devices: "list[Description]") -> None:
    if inventory.unread is not None:
        print_error(f"whose the devices are is unknown: {inventory.unread}")
    if not devices:  # an empty list may also mean that sysfs is not mounted here
        try:
            host.sysfs.check_seen()
        except KernelError as error:
            print_error(str(error))
    for device in devices:
        if device["unread"] is not None:
            print_error(f"{device['address']}: {device['unread']}")
    for record in inventory.absent:
        print_error(f"{absent_text(host, inventory, record)}; see `hostdev status`")
    for device in devices:
        if device.get("replugged"):
            print_error(f"{device['address']}: {device['replugged']}")
        if device.get("unrecorded"):
            print_error(Unrecorded(device["address"], device["kernel_driver"]))
