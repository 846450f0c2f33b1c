"""`hostdev show`: everything about one device. Opens no connection and loads no plugin.

What takes the device's lock is not read while an operation works on it or it is stuck, and else in
another process: such a read hangs as long as the kernel does.
"""

from hostdev_core.cli import descriptions as fact
from hostdev_core.cli.hardware_names import Names
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import complain, emit_json, pairs
from hostdev_core.errors import DeviceNotFoundError, KernelError
from hostdev_core.inventory.inventory import device_of, look
from hostdev_core.kernel.sysfs import PCI_DEVICES, USB_DEVICES
from hostdev_core.model.address import PCIAddress, USBSelector, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.cli.descriptions import Facts
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.device import PCIDevice, USBDevice
    from hostdev_core.model.record import Record

PATIENCE = 2.0  # seconds for reads that wait for the device's lock


def run(options: Options) -> int:
    """Print the device, or all USB devices that match."""
    host = open_host(options)
    wanted = parse_address(options.device)
    inventory = look(host, tolerant=True)
    names = Names.of(host)
    absent = [record for record in inventory.absent if _is_meant(record, wanted)]
    found = _find(host, inventory, wanted, known=bool(absent))
    shown = [_everything(host, inventory, names, device) for device in found]
    if options.json:
        gone = [fact.absent_facts(host, inventory, record) for record in absent]
        emit_json({"devices": shown, "absent": gone, "ledger_error": inventory.unread})
        return 0
    for facts in shown:
        pairs(f"{facts['address']}: {fact.device_words(facts)} [{facts['ids']}]", _rows(facts))
    for record in absent:
        _show_absent(host, inventory, record)
    if inventory.unread is not None:
        complain(f"whose it is is unknown: {inventory.unread}")
    return 0


def _is_meant(record: "Record", wanted: PCIAddress | USBSelector) -> bool:
    """Whether the record of a device that is not there is about what was asked for."""
    if isinstance(wanted, PCIAddress):
        return record.key == ("pci", str(wanted))
    return record.kind == "usb" and device_of(record).matches(wanted)


def _show_absent(host: "Host", inventory: "Inventory", record: "Record") -> None:
    """What the ledger knows of a device that is not there."""
    from hostdev_core.inventory.drift import way_back

    facts = fact.record_facts(host, record)
    rows: list[tuple[str, object]] = [
        ("record", fact.state_words(facts)),
        ("was", record.usb or record.modalias or None),
        ("found on", _found(facts) if record.kind == "pci" else None),
        ("operation", facts["operation"]),
        ("to end it", way_back(record)),
    ]
    pairs(fact.absent_words(host, inventory, record), rows)


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
    if known:
        return []
    if isinstance(wanted, USBSelector):
        from hostdev_core.bus.hubs import check_no_hub

        check_no_hub(host.sysfs, host.usb_texts, wanted, inventory.usb.values())
    raise DeviceNotFoundError(
        f"there is no device {wanted}; `hostdev list` shows those there are",
        device=str(wanted),
        rule="unknown-device",
    )


def _everything(
    host: "Host", inventory: "Inventory", names: Names, device: "PCIDevice | USBDevice"
) -> "Facts":
    record = inventory.record(device)
    if device.kind == "pci":
        facts = _pci(host, inventory, names, device)  # type: ignore[arg-type]
    else:
        facts = _usb(host, inventory, names, device)  # type: ignore[arg-type]
    facts["record"] = None if record is None else fact.record_facts(host, record)
    busy = record is not None and (record.op is not None or record.stuck is not None)
    if device.unread is not None:
        return {**facts, "udev": {}}
    return facts | locked_facts(host, str(facts["kind"]), str(facts["address"]), busy=busy)


def _pci(host: "Host", inventory: "Inventory", names: Names, device: "PCIDevice") -> "Facts":
    from hostdev_core.bus.pci import virtual_functions

    path, address = f"{PCI_DEVICES}/{device.name}", device.address
    read = host.sysfs.read
    group = [
        {key: facts[key] for key in ("address", "class_name", "kernel_driver", "state", "used_by")}
        for member in inventory.group(device.iommu_group)
        for facts in [fact.pci_facts(host, inventory, names, member)]
    ]
    return {
        **fact.pci_facts(host, inventory, names, device),
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
    if group is None or not is_vfio_driver(device.kernel_driver):
        return None
    return host.path(group_node(host.sysfs, group))


def _usb(host: "Host", inventory: "Inventory", names: Names, device: "USBDevice") -> "Facts":
    interfaces = [
        name for name in host.sysfs.names(USB_DEVICES) if name.startswith(f"{device.port}:")
    ]
    return {
        **fact.usb_facts(host, inventory, names, device),
        "names": [device.port, device.number, device.ids],
        "node": host.path(device.node),
        "interface_drivers": {
            name: host.sysfs.link(f"{USB_DEVICES}/{name}/driver") for name in interfaces
        },
    }


def locked_facts(host: "Host", kind: str, address: str, *, busy: bool) -> "Facts":
    """What takes the device's lock; `unread` says why it was not read."""
    if busy:
        return {"udev": {}, "unread": "the kernel or an operation is at work on it"}
    from hostdev_core.cli.in_subprocess import ask_apart

    def ask() -> "Facts":
        from hostdev_core.bus.pci import read_override

        found: Facts = {"unread": None}
        if kind == "pci":
            path = f"{PCI_DEVICES}/{address}"
            try:
                found["driver_override"] = read_override(host.sysfs, address)
                found["sriov_numvfs"] = host.sysfs.read(f"{path}/sriov_numvfs")
            except KernelError as error:
                return {"unread": str(error)}
        return found

    answer = ask_apart(ask, PATIENCE)
    if not answer:
        return {"udev": {}, "unread": f"the kernel does not answer within {PATIENCE:g} s"}
    return {**answer, "udev": _udev(host, kind, address)}


def _udev(host: "Host", kind: str, address: str) -> "Facts":
    """udev's properties, of the running machine only; empty where they cannot be had."""
    if host.root != "/":
        return {}
    from hostdev_core.cli.in_subprocess import ask_apart

    folder = host.path(f"sys/bus/{kind}/devices/{address}")
    return ask_apart(lambda: {**host.udev.properties(folder)}, PATIENCE)


def _rows(facts: "Facts") -> "list[tuple[str, object]]":
    rows: list[tuple[str, object]] = [
        ("names", ", ".join(facts["names"])),
        ("state", fact.state_words(facts)),
    ]
    rows += _pci_rows(facts) if facts["kind"] == "pci" else _usb_rows(facts)
    rows.append(("node", facts["node"]))
    if record := facts["record"]:
        rows.append(("returns", record["returns"]))
        rows.append(("found on", _found(record) if facts["kind"] == "pci" else None))
        rows.append(("operation", record["operation"]))
    rows.append(("replugged", facts.get("replugged")))
    rows.append(("unrecorded", _unrecorded(facts)))
    rows.append(("not read", facts["unread"]))
    rows += (("udev", f"{key}={value}") for key, value in sorted(facts["udev"].items()))
    return rows


def _unrecorded(facts: "Facts") -> str | None:
    """What to say of a device that is on a stub driver without a record."""
    if not facts.get("unrecorded"):
        return None
    from hostdev_core.inventory.unrecorded import Unrecorded

    return str(Unrecorded(facts["address"], facts["kernel_driver"]))


def _found(record: "Facts") -> str:
    return record["found"]["kernel_driver"] or "no driver"


def _pci_rows(facts: "Facts") -> "list[tuple[str, object]]":
    vfs, total = facts["virtual_functions"], facts["sriov_totalvfs"]
    card = facts["subsystem_name"]
    rows: list[tuple[str, object]] = [
        ("class", f"{facts['class_name'] or 'unknown'} [{facts['class']}]"),
        ("subsystem", f"{card or ''} [{facts['subsystem_ids']}]".strip()),
        ("revision", facts["revision"]),
        ("kernel driver", facts["kernel_driver"] or "none"),
        ("driver_override", facts.get("driver_override")),
        ("power/control", facts["power_control"]),
        ("reset methods", ", ".join(facts["reset_methods"]) or "none"),
        ("virtual function of", facts["physfn"]),
        ("SR-IOV", f"{len(vfs)} of {total} virtual functions {' '.join(vfs)}" if total else None),
        ("IOMMU group", "none" if facts["iommu_group"] is None else facts["iommu_group"]),
    ]
    return [*rows, *(("  with", _member(each)) for each in facts["group"] if _other(each, facts))]


def _other(member: "Facts", facts: "Facts") -> bool:
    return bool(member["address"] != facts["address"])


def _member(member: "Facts") -> str:
    kind, driver = member["class_name"] or "", member["kernel_driver"] or "no driver"
    return f"{member['address']} {kind} on {driver} ({member['state']})"


def _usb_rows(facts: "Facts") -> "list[tuple[str, object]]":
    drivers = (f"{name} on {driver}" for name, driver in facts["interface_drivers"].items())
    return [
        ("label", facts["label"] or None),
        ("serial", facts["serial"]),
        ("interfaces", ", ".join(drivers) or None),
        ("controller", facts["controller"]),
    ]
