"""Descriptions of devices and records: dicts with the keys of `--json`, and short texts for people.

The keys are documented in docs/cli.md and stay. Imports of whole rooms stand in the functions that need
them: `hostdev list` loads no more than it shows.
"""

from hostdev_core.inventory import inventory as seen
from hostdev_core.inventory.unrecorded import is_stub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hostdev_core.cli.hardware_names import Names
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.assignment import Returned
    from hostdev_core.model.device import Device, PCIDevice, USBDevice, UsedBy
    from hostdev_core.model.record import Record

    Description = dict[str, Any]


def state_of(host: "Host", inventory: "Inventory", record: "Record | None") -> str:
    """The state of a device in a word or two: docs/cli.md lists them."""
    if inventory.records is None:  # the ledger could not be read
        return "unknown"
    return "free" if record is None else record_state(host, record)


def record_state(host: "Host", record: "Record") -> str:
    """The state of a device that has a record."""
    return seen.record_state(record, lambda _: is_at_work(host, record))


def is_at_work(host: "Host", record: "Record") -> bool:
    """Tell whether a living operation is at work on a record."""
    from hostdev_core.runtime.operation import is_alive

    return record.op is not None and is_alive(host.state_dir, record.op)


def state_text(described: "Description") -> str:
    """Render a device's state for people: "lent to vm1 (qemu)"."""
    owner = described["used_by"]
    domain = f"{owner['domain']} ({owner['driver']})" if owner else "the inactive list"
    state = str(described["state"])
    again = ", plugged in again since" if described.get("replugged") else ""
    texts = {
        "lent": f"lent to {domain}{again}",
        "sibling": f"taken with its group for {domain}",
        "preparing": f"being prepared for {domain}",
        "releasing": f"being given back from {domain}",
        "waiting": "waits for its IOMMU group",
        "left over": f"left over (was for {domain}); `hostdev recover`",
        "stuck": f"stuck (for {domain}): {described['stuck']}",
    }
    return texts.get(state, state)


def describe_pci(
    host: "Host", inventory: "Inventory", names: "Names", device: "PCIDevice"
) -> "Description":
    """Describe a PCI device, as a listing shows it."""
    ids, code = device.ids, device.class_code
    vendor, name = names.pci(ids)
    return {
        "kind": "pci",
        "address": device.name,
        "class": code,
        "class_name": names.pci_class(code),
        "ids": ids,
        "vendor_name": vendor,
        "device_name": name,
        "kernel_driver": device.kernel_driver,
        "iommu_group": device.iommu_group,
        "physfn": device.physfn,
        "unrecorded": _is_unrecorded(inventory, device),
        "unread": device.unread,
        **_use(host, inventory, device),
    }


def _is_unrecorded(inventory: "Inventory", device: "PCIDevice") -> bool:
    """Tell whether it is on a stub driver while the ledger, which can be read, has no record of it."""
    record = inventory.record_at_address((device.kind, device.name))
    known = (
        inventory.records is None
        or inventory.record_of_device((device.kind, device.name)) is not None
    )
    # A slot that the record of an earlier device left took this one: that record accounts for it.
    seized = record is not None and record.seizes(device.kernel_driver)
    return not known and not seized and is_stub(device.kernel_driver)


def describe_usb(
    host: "Host", inventory: "Inventory", names: "Names", device: "USBDevice"
) -> "Description":
    """Describe a USB device, as a listing shows it."""
    vendor, name = names.usb(device.ids)
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
        "replugged": _replugged(inventory, device),
        "unread": device.unread,
        **_use(host, inventory, device),
    }


def _replugged(inventory: "Inventory", device: "USBDevice") -> str | None:
    """Say that a USB device came back under another number; None for any other device."""
    if (device.kind, device.port) not in inventory.replugged:
        return None
    from hostdev_core.model.words import replug_words

    return replug_words((inventory.records or {})[device.kind, device.port])


def _use(host: "Host", inventory: "Inventory", device: "Device") -> "Description":
    record = inventory.record_of_device((device.kind, device.name))
    return {
        "state": state_of(host, inventory, record),
        "used_by": describe_owner(device.used_by),
        "stuck": device.stuck,
    }


def describe_owner(owner: "UsedBy | None") -> "Description | None":
    """Describe the domain that has a device."""
    return None if owner is None else owner._asdict()


def describe_record(host: "Host", record: "Record") -> "Description":
    """Describe a record: all that the ledger knows of a device."""
    return {
        "kind": record.kind,
        "address": record.address,
        "state": record_state(host, record),
        "used_by": describe_owner(record.owner),
        "stuck": record.stuck,
        "phase": str(record.phase),
        "driver": record.backend,
        "stub": record.stub,
        "iommu_group": record.group,
        "handed": record.handed,
        "returns": "inactive list" if record.rests_on_list else "as found",
        "found": {
            "kernel_driver": record.found.kernel_driver,
            "driver_override": record.found.driver_override,
            "power_control": record.found.power_control,
        },
        "allowed": record.allowed.split(),
        "operation": _operation(host, record),
        "since": record.since,
    }


def describe_absent(host: "Host", inventory: "Inventory", record: "Record") -> "Description":
    """Describe the record of a device that is not there, and tell whether another is at its address."""
    return {**describe_record(host, record), "where": _where(host, inventory, record)}


def _where(host: "Host", inventory: "Inventory", record: "Record") -> str:
    """Tell `replaced`, `gone`, or `unseen`: a namespace or a mount may hide a device that is there."""
    if record.key in inventory.others:  # another device is at its address
        return "replaced"
    from hostdev_core.errors import KernelError
    from hostdev_core.inventory.drift import check_hidden

    try:
        check_hidden(host, record)
    except KernelError:
        return "unseen"
    return "gone"


def absent_text(host: "Host", inventory: "Inventory", record: "Record") -> str:
    """Render the record of a device that is not there for people, on one line."""
    whose = f", which is for {record.owner}," if record.owner else ", which was detached,"
    where = _where(host, inventory, record)
    if where == "unseen":
        return f"{record.address}{whose} cannot be seen from here, and may be there"
    if where == "gone":
        return f"{record.address}{whose} is not there (any more)"
    return f"{record.address}{whose} is not there any more: another device is at its address"


def outcome_of(returned: "Returned", address: str) -> str:
    """Name the outcome for a device that was given back: `given back`, `gone` or `replaced`."""
    if address in returned.replaced:
        return "replaced"
    return "gone" if address in returned.gone else "given back"


def describe_freed(returned: "Returned") -> "list[Description]":
    """Describe the devices at replaced ones' addresses that were taken off the stub driver."""
    return [{"address": address, "kernel_driver": driver} for address, driver in returned.freed]


def outcome_text(returned: "Returned", address: str) -> str:
    """Render the outcome for people."""
    freed = dict(returned.freed)
    other = "was left alone"
    if address in freed:
        other = f"had been taken to its stub and is on {freed[address] or 'no driver'} now"
    texts = {
        "replaced": f"was replaced by another device, which {other}: its record is removed",
        "gone": "was unplugged: its record is removed",
        "given back": "is given back",
    }
    return f"{address} {texts[outcome_of(returned, address)]}"


def _operation(host: "Host", record: "Record") -> str | None:
    if record.op is None:
        return None
    from hostdev_core.runtime.operation import describe

    return describe(host.state_dir, record.op)


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
