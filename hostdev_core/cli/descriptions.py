"""What is said of a device and of a record: the JSON keys, and the words for people.

The keys are documented in docs/cli.md and stay.
"""

from hostdev_core.inventory.unrecorded import is_stub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hostdev_core.cli.hardware_names import Names
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.assignment import Returned
    from hostdev_core.model.device import PCIDevice, USBDevice
    from hostdev_core.model.owner import UsedBy
    from hostdev_core.model.record import Record

    Facts = dict[str, Any]

BAD = frozenset({"stuck", "left over"})


def state_of(host: "Host", inventory: "Inventory", record: "Record | None") -> str:
    """One word (or two): docs/cli.md lists them."""
    if inventory.records is None:
        return "unknown"
    return "free" if record is None else record_state(host, record)


def record_state(host: "Host", record: "Record") -> str:
    """The state of a device that has a record."""
    phase = str(record.phase)
    if record.stuck is not None:
        return "stuck"
    if record.op is not None:
        return phase if is_at_work(host, record) else "left over"
    if phase == "active":
        return "lent" if record.handed else "sibling"
    return "waiting" if phase == "releasing" else phase


def is_at_work(host: "Host", record: "Record") -> bool:
    """Whether a living operation is at work on a record."""
    from hostdev_core.runtime.operation import is_alive

    return record.op is not None and is_alive(host.state_dir, record.op)


def state_words(facts: "Facts") -> str:
    """A device's state for people: "lent to vm1 (qemu)"."""
    owner = facts["used_by"]
    domain = f"{owner['domain']} ({owner['driver']})" if owner else "the inactive list"
    state = str(facts["state"])
    again = ", plugged in again since" if facts.get("replugged") else ""
    words = {
        "lent": f"lent to {domain}{again}",
        "sibling": f"taken with its group for {domain}",
        "preparing": f"being prepared for {domain}",
        "releasing": f"being given back from {domain}",
        "waiting": "waits for its IOMMU group",
        "left over": f"left over (was for {domain}); `hostdev recover`",
        "stuck": f"stuck (for {domain}): {facts['stuck']}",
    }
    return words.get(state, state)


def pci_facts(host: "Host", inventory: "Inventory", names: "Names", device: "PCIDevice") -> "Facts":
    """What is said of a PCI device."""
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
    """Whether it is on a stub driver, and the ledger, which can be read, has no record of it."""
    record = inventory.record_at(device)
    known = inventory.records is None or inventory.record(device) is not None
    seized = record is not None and record.seizes(device.kernel_driver)
    return not known and not seized and is_stub(device.kernel_driver)


def usb_facts(host: "Host", inventory: "Inventory", names: "Names", device: "USBDevice") -> "Facts":
    """What is said of a USB device."""
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
    """What to say of a USB device that came back under another number; None for any other."""
    if (device.kind, device.port) not in inventory.replugged:
        return None
    from hostdev_core.inventory.drift import replug_words

    return replug_words((inventory.records or {})[device.kind, device.port])


def _use(host: "Host", inventory: "Inventory", device: "PCIDevice | USBDevice") -> "Facts":
    record = inventory.record(device)
    return {
        "state": state_of(host, inventory, record),
        "used_by": owner_facts(device.used_by),
        "stuck": device.stuck,
    }


def owner_facts(owner: "UsedBy | None") -> "Facts | None":
    """The domain that has a device."""
    return None if owner is None else owner._asdict()


def record_facts(host: "Host", record: "Record") -> "Facts":
    """What the ledger says of a device."""
    return {
        "kind": record.kind,
        "address": record.address,
        "state": record_state(host, record),
        "used_by": owner_facts(record.owner),
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


def absent_facts(host: "Host", inventory: "Inventory", record: "Record") -> "Facts":
    """The record of a device that is not there, and whether another one is at its address."""
    return {**record_facts(host, record), "where": _where(host, inventory, record)}


def _where(host: "Host", inventory: "Inventory", record: "Record") -> str:
    if record.key in inventory.others:
        return "replaced"
    from hostdev_core.errors import KernelError
    from hostdev_core.inventory.drift import check_hidden

    try:
        check_hidden(host, record)
    except KernelError:
        return "unseen"
    return "gone"


def absent_words(host: "Host", inventory: "Inventory", record: "Record") -> str:
    """The same for people, on one line."""
    whose = f", which is for {record.owner}," if record.owner else ", which was detached,"
    where = _where(host, inventory, record)
    if where == "unseen":
        return f"{record.address}{whose} cannot be seen from here, and may be there"
    if where == "gone":
        return f"{record.address}{whose} is not there (any more)"
    return f"{record.address}{whose} is not there any more: another device is at its address"


def outcome_of(returned: "Returned", address: str) -> str:
    """What became of a device that was given back: `given back`, `gone` or `replaced`."""
    if address in returned.replaced:
        return "replaced"
    return "gone" if address in returned.gone else "given back"


def freed_facts(returned: "Returned") -> "list[Facts]":
    """The devices at the addresses of replaced ones that were let go to their own drivers."""
    return [{"address": address, "kernel_driver": driver} for address, driver in returned.freed]


def outcome_words(returned: "Returned", address: str) -> str:
    """The same for people."""
    freed = dict(returned.freed)
    other = "was left alone"
    if address in freed:
        other = f"had been taken to its stub and is on {freed[address] or 'no driver'} now"
    words = {
        "replaced": f"was replaced by another device, which {other}: its record is removed",
        "gone": "was unplugged: its record is removed",
        "given back": "is given back",
    }
    return f"{address} {words[outcome_of(returned, address)]}"


def _operation(host: "Host", record: "Record") -> str | None:
    if record.op is None:
        return None
    from hostdev_core.runtime.operation import describe

    return describe(host.state_dir, record.op)


def device_words(facts: "Facts") -> str:
    """What a device is, for people, where that is known."""
    known = " ".join(word for word in (facts["vendor_name"], facts["device_name"]) if word)
    if facts["kind"] == "usb" and facts["label"] and not facts["device_name"]:
        known = facts["label"]
    if facts["unread"]:
        silent = "does not answer" if facts["kind"] == "usb" else "cannot be seen"
        known = f"{known} ({silent})".strip()
    return known
