"""`hostdev show`: everything about devices. Opens no connection and loads no plugin."""

from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit_json, pairs, print_error
from hostdev_core.facts.facts import Facts, device_text
from hostdev_core.facts.find import find_devices, names_of
from hostdev_core.facts.locked import describe_locked
from hostdev_core.facts.records import absent_text, describe_absent, describe_record
from hostdev_core.kernel.sysfs import PCI_DEVICES, USB_DEVICES
from hostdev_core.runtime.in_subprocess import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostdev_core.facts.use import Description
    from hostdev_core.host import Host
    from hostdev_core.model.device import Device, PCIDevice, USBDevice
    from hostdev_core.model.record import Record


def run(options: Options) -> int:
    """Print the devices, and all USB devices that match."""
    host = open_host(options)
    # Without the texts of USB devices: only those of the shown ones are read.
    facts = Facts.of(host)
    found: dict[tuple[str, str], Device] = {}
    absent: dict[tuple[str, str], Record] = {}
    for text in options.devices:
        devices, records = find_devices(facts, text)
        found |= {(device.kind, device.name): device for device in devices}
        absent |= {record.key: record for record in records}
    shown = _describe(facts, [*found.values()])
    if options.json:
        gone = [describe_absent(host, facts.inventory, record) for record in absent.values()]
        emit_json({"devices": shown, "absent": gone, "ledger_error": facts.inventory.unread})
        return 0
    for number, device in enumerate(shown):
        title = f"{device['address']}: {device_text(device)} [{device['ids']}]"
        pairs(title, _rows(host, device), apart=number > 0)
    for record in absent.values():
        _show_absent(facts, record)
    if facts.inventory.unread is not None:
        print_error(f"whose it is is unknown: {facts.inventory.unread}")
    if shown and facts.names.missing:
        print_error(facts.names.hint())
    return 0


def _describe(facts: Facts, devices: "list[Device]") -> "list[Description]":
    """Describe devices with all that is known of them, in this order."""
    sticks = [device for device in devices if device.kind == "usb"]
    texts = {each.port: each for each in facts.host.usb_texts.fill(sticks, PATIENCE)}  # type: ignore[arg-type]
    whole = [texts.get(each.name, each) if each.kind == "usb" else each for each in devices]
    locked = {(each.kind, each.name): _locked(facts, each) for each in whole}
    overrides = {
        name: read["driver_override"]
        for (_, name), read in locked.items()
        if "driver_override" in read
    }
    facts.look_closely(whole, overrides)
    return [_everything(facts, each) | locked[each.kind, each.name] for each in whole]


def _locked(facts: Facts, device: "Device") -> "Description":
    """Read what takes the device's lock, unless an operation may keep that."""
    if device.unread is not None:
        return {"udev": {}}
    record = facts.inventory.record_of_device((device.kind, device.name))
    busy = record is not None and (record.op is not None or record.stuck is not None)
    return describe_locked(facts.host, device.kind, device.name, busy=busy)


def _show_absent(facts: Facts, record: "Record") -> None:
    """Print the record of a device that is not there."""
    from hostdev_core.model.words import way_back

    host = facts.host
    described = describe_absent(host, facts.inventory, record)
    rows: list[tuple[str, object]] = [
        ("record", described["use"]["text"]),
        ("was", record.usb or record.modalias or None),
        ("found on", _found(described) if host.buses[record.kind].has_steps else None),
        ("operation", described["operation"]),
        ("to end it", way_back(record)),
    ]
    pairs(absent_text(host, facts.inventory, record), rows)


def _everything(facts: Facts, device: "Device") -> "Description":
    record = facts.inventory.record_of_device((device.kind, device.name))
    more = _pci(facts, device) if device.kind == "pci" else _usb(facts, device)  # type: ignore[arg-type]
    return {
        **facts.describe(device),
        "names": names_of(facts, device),
        "numa_node": facts.numa_node(device),
        **more,
        "record": None if record is None else describe_record(facts.host, record),
    }


def _pci(facts: Facts, device: "PCIDevice") -> "Description":
    from hostdev_core.bus.pci import virtual_functions

    host, path = facts.host, f"{PCI_DEVICES}/{device.name}"
    read = host.sysfs.read
    group = [
        {
            key: described[key]
            for key in ("address", "class_name", "kernel_driver", "state", "use", "used_by")
        }
        for member in facts.inventory.group(device.iommu_group)
        for described in [facts.describe(member)]
    ]
    return {
        "modalias": device.modalias,
        "subsystem_ids": device.subsystem_ids,
        "subsystem_name": facts.names.subsystem(device.ids, device.subsystem_ids),
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


def _usb(facts: Facts, device: "USBDevice") -> "Description":
    host = facts.host
    interfaces = [
        name for name in host.sysfs.names(USB_DEVICES) if name.startswith(f"{device.port}:")
    ]
    return {
        "node": host.path(device.node),
        "interface_drivers": {
            name: host.sysfs.link(f"{USB_DEVICES}/{name}/driver") for name in interfaces
        },
    }


def _rows(host: "Host", device: "Description") -> "list[tuple[str, object]]":
    rows: list[tuple[str, object]] = [
        ("names", ", ".join(device["names"])),
        ("state", device["use"]["text"]),
        *(("  by", each) for each in _evidence(device["use"])),
    ]
    rows += _pci_rows(device) if device["kind"] == "pci" else _usb_rows(device)
    rows += _belongings(device)
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


def _evidence(use: "Description") -> "Sequence[str]":
    """What is known by what; nothing where the text has it all."""
    return () if [use["text"].partition(": ")[2]] == use["evidence"] else use["evidence"]


def _belongings(device: "Description") -> "list[tuple[str, object]]":
    """The names that the host has for parts of a device, and where it is."""
    return [
        ("network", ", ".join(device["net"]) or None),
        ("disks", ", ".join(device["block"]) or None),
        ("DRM nodes", ", ".join(device["drm"]) or None),
        ("NUMA node", device["numa_node"]),
    ]


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
    return f"{member['address']} {kind} on {driver} ({member['use']['code']})"


def _usb_rows(device: "Description") -> "list[tuple[str, object]]":
    drivers = (f"{name} on {driver}" for name, driver in device["interface_drivers"].items())
    return [
        ("label", device["label"] or None),
        ("serial", device["serial"]),
        ("interfaces", ", ".join(drivers) or None),
        ("controller", device["controller"]),
    ]
