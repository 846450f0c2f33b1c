"""`hostdev show`: everything about one device. Opens no connection and loads no plugin."""

from hostdev_core.bus.usb_records import recorded_usb
from hostdev_core.cli.descriptions import (
    absent_text,
    describe_absent,
    describe_pci,
    describe_record,
    describe_usb,
    device_text,
    state_text,
)
from hostdev_core.cli.hardware_names import Names
from hostdev_core.cli.in_subprocess import PATIENCE, describe_locked
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit_json, pairs, print_error
from hostdev_core.inventory.inventory import look
from hostdev_core.kernel.sysfs import PCI_DEVICES, USB_DEVICES
from hostdev_core.model.address import PCIAddress, USBSelector, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.cli.descriptions import Description
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.device import Device, PCIDevice, USBDevice
    from hostdev_core.model.record import Record


def run(options: Options) -> int:
    """Print the device, or all USB devices that match."""
    host = open_host(options)
    wanted = parse_address(options.device)
    # Without the texts of USB devices: _find reads those of the shown ones.
    inventory = look(host, tolerant=True)
    names = Names.of(host)
    absent = [record for record in inventory.absent if _is_meant(record, wanted)]
    found = _find(host, inventory, wanted, known=bool(absent))
    shown = [_everything(host, inventory, names, device) for device in found]
    if options.json:
        gone = [describe_absent(host, inventory, record) for record in absent]
        emit_json({"devices": shown, "absent": gone, "ledger_error": inventory.unread})
        return 0
    for device in shown:
        pairs(f"{device['address']}: {device_text(device)} [{device['ids']}]", _rows(host, device))
    for record in absent:
        _show_absent(host, inventory, record)
    if inventory.unread is not None:
        print_error(f"whose it is is unknown: {inventory.unread}")
    return 0


def _is_meant(record: "Record", wanted: PCIAddress | USBSelector) -> bool:
    """Tell whether the record of an absent device is one that the name on the command line means."""
    if isinstance(wanted, PCIAddress):
        return record.key == ("pci", str(wanted))
    return record.kind == "usb" and recorded_usb(record).matches(wanted)


def _show_absent(host: "Host", inventory: "Inventory", record: "Record") -> None:
    """Print the record of a device that is not there."""
    from hostdev_core.model.words import way_back

    described = describe_record(host, record)
    rows: list[tuple[str, object]] = [
        ("record", state_text(described)),
        ("was", record.usb or record.modalias or None),
        ("found on", _found(described) if host.buses[record.kind].has_steps else None),
        ("operation", described["operation"]),
        ("to end it", way_back(record)),
    ]
    pairs(absent_text(host, inventory, record), rows)


def _find(
    host: "Host", inventory: "Inventory", wanted: PCIAddress | USBSelector, *, known: bool
) -> "list[PCIDevice] | list[USBDevice]":
    if isinstance(wanted, PCIAddress):
        device = inventory.pci.get(str(wanted))
        if device is not None:
            return [device]
    else:
        found = [device for device in inventory.usb.values() if device.matches(wanted)]
        if found:
            return host.usb_texts.fill(found, PATIENCE)
    if known:  # its record is shown
        return []
    if isinstance(wanted, USBSelector):
        from hostdev_core.bus.hubs import check_no_hub

        check_no_hub(host.sysfs, host.usb_texts, wanted, inventory.usb.values())
    from hostdev_core.bus.unknown import no_such_device

    there = inventory.usb.values()
    usb = (name for each in there for name in (each.port, each.number, each.ids))
    raise no_such_device("device", str(wanted), (*inventory.pci, *usb))


def _everything(
    host: "Host", inventory: "Inventory", names: Names, device: "Device"
) -> "Description":
    record = inventory.record_of_device((device.kind, device.name))
    if device.kind == "pci":
        described = _pci(host, inventory, names, device)  # type: ignore[arg-type]
    else:
        described = _usb(host, inventory, names, device)  # type: ignore[arg-type]
    described["record"] = None if record is None else describe_record(host, record)
    busy = record is not None and (record.op is not None or record.stuck is not None)
    if device.unread is not None:
        return {**described, "udev": {}}
    return described | describe_locked(
        host, str(described["kind"]), str(described["address"]), busy=busy
    )


def _pci(host: "Host", inventory: "Inventory", names: Names, device: "PCIDevice") -> "Description":
    from hostdev_core.bus.pci import virtual_functions

    path, address = f"{PCI_DEVICES}/{device.name}", device.address
    read = host.sysfs.read
    group = [
        {
            key: described[key]
            for key in ("address", "class_name", "kernel_driver", "state", "used_by")
        }
        for member in inventory.group(device.iommu_group)
        for described in [describe_pci(host, inventory, names, member)]
    ]
    return {
        **describe_pci(host, inventory, names, device),
        # In domain 0 the short form, without "0000:", is a name as well.
        "names": [device.name, *([] if address.domain else [device.name[5:]])],
        "modalias": device.modalias,
        "subsystem_ids": device.subsystem_ids,
        "subsystem_name": names.subsystem(device.ids, device.subsystem_ids),
        "revision": read(f"{path}/revision"),
        "power_control": read(f"{path}/power/control"),
        "reset_methods": (read(f"{path}/reset_method") or "").split(),
        "sriov_totalvfs": read(f"{path}/sriov_totalvfs"),
        "virtual_functions": [*virtual_functions(host.sysfs, device.name)],
        "group": group,
        "node": _group_node(host, device),
    }


def _group_node(host: "Host", device: "PCIDevice") -> str | None:
    from hostdev_core.kernel.vfio import group_node
    from hostdev_core.model.device import is_vfio_driver

    group = device.iommu_group
    # VFIO makes the node when it binds the first device of the group.
    if group is None or not is_vfio_driver(device.kernel_driver):
        return None
    return host.path(group_node(host.sysfs, group))


def _usb(host: "Host", inventory: "Inventory", names: Names, device: "USBDevice") -> "Description":
    interfaces = [
        name for name in host.sysfs.names(USB_DEVICES) if name.startswith(f"{device.port}:")
    ]
    return {
        **describe_usb(host, inventory, names, device),
        "names": [device.port, device.number, device.ids],
        "node": host.path(device.node),
        "interface_drivers": {
            name: host.sysfs.link(f"{USB_DEVICES}/{name}/driver") for name in interfaces
        },
    }


def _rows(host: "Host", device: "Description") -> "list[tuple[str, object]]":
    rows: list[tuple[str, object]] = [
        ("names", ", ".join(device["names"])),
        ("state", state_text(device)),
    ]
    rows += _pci_rows(device) if device["kind"] == "pci" else _usb_rows(device)
    rows.append(("node", device["node"]))
    if record := device["record"]:
        rows.append(("returns", record["returns"]))
        is_bound = host.buses[device["kind"]].has_steps
        rows.append(("found on", _found(record) if is_bound else None))
        rows.append(("operation", record["operation"]))
    rows.append(("replugged", device.get("replugged")))
    rows.append(("unrecorded", _unrecorded(device)))
    rows.append(("not read", device["unread"]))
    rows += (("udev", f"{key}={value}") for key, value in sorted(device["udev"].items()))
    return rows


def _unrecorded(device: "Description") -> str | None:
    """Say that a device is on a stub driver without a record; None for any other."""
    if not device.get("unrecorded"):
        return None
    from hostdev_core.inventory.unrecorded import Unrecorded

    return str(Unrecorded(device["address"], device["kernel_driver"]))


def _found(record: "Description") -> str:
    return record["found"]["kernel_driver"] or "no driver"


def _pci_rows(device: "Description") -> "list[tuple[str, object]]":
    vfs, total = device["virtual_functions"], device["sriov_totalvfs"]
    card = device["subsystem_name"]
    rows: list[tuple[str, object]] = [
        ("class", f"{device['class_name'] or 'unknown'} [{device['class']}]"),
        ("subsystem", f"{card or ''} [{device['subsystem_ids']}]".strip()),
        ("revision", device["revision"]),
        ("kernel driver", device["kernel_driver"] or "none"),
        ("driver_override", device.get("driver_override")),
        ("power/control", device["power_control"]),
        ("reset methods", ", ".join(device["reset_methods"]) or "none"),
        ("virtual function of", device["physfn"]),
        ("SR-IOV", f"{len(vfs)} of {total} virtual functions {' '.join(vfs)}" if total else None),
        ("IOMMU group", "none" if device["iommu_group"] is None else device["iommu_group"]),
    ]
    return [*rows, *(("  with", _member(each)) for each in device["group"] if _other(each, device))]


def _other(member: "Description", device: "Description") -> bool:
    return bool(member["address"] != device["address"])


def _member(member: "Description") -> str:
    kind, driver = member["class_name"] or "", member["kernel_driver"] or "no driver"
    return f"{member['address']} {kind} on {driver} ({member['state']})"


def _usb_rows(device: "Description") -> "list[tuple[str, object]]":
    drivers = (f"{name} on {driver}" for name, driver in device["interface_drivers"].items())
    return [
        ("label", device["label"] or None),
        ("serial", device["serial"]),
        ("interfaces", ", ".join(drivers) or None),
        ("controller", device["controller"]),
    ]
