"""`hostdev list`: what is there and whose it is. Opens no connection and loads no plugin."""

from hostdev_core.cli import descriptions as fact
from hostdev_core.cli.hardware_names import Names
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import complain, emit_json, table
from hostdev_core.errors import KernelError
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.unrecorded import Unrecorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.cli.descriptions import Facts
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory

HEADERS = ("ADDRESS", "CLASS", "IDS", "DEVICE", "DRIVER", "GROUP", "STATE")


def run(options: Options) -> int:
    """Print all devices."""
    host = open_host(options)
    inventory = look(host, tolerant=True, texts=True)
    devices = all_facts(host, inventory)
    if options.json:
        emit_json(_document(host, inventory, devices))
    elif options.groups:
        table(HEADERS, _groups(devices))
    else:
        table(HEADERS, [("", [_row(facts) for facts in devices])])
    if not options.json:
        _remarks(host, inventory, devices)
    return 0


def all_facts(host: "Host", inventory: "Inventory") -> "list[Facts]":
    """Every device of the host, PCI first."""
    names = Names.of(host)
    return [
        *(fact.pci_facts(host, inventory, names, device) for device in inventory.pci.values()),
        *(fact.usb_facts(host, inventory, names, device) for device in inventory.usb.values()),
    ]


def _document(host: "Host", inventory: "Inventory", devices: "list[Facts]") -> "Facts":
    return {
        "devices": devices,
        "absent": [fact.absent_facts(host, inventory, record) for record in inventory.absent],
        "ledger_error": inventory.unread,
    }


def _row(facts: "Facts") -> "list[str]":
    driver, group = facts.get("kernel_driver"), facts.get("iommu_group")
    if facts["kind"] == "pci":
        kind = facts["class_name"] or f"class {facts['class']}"
    else:
        kind = f"USB {facts['number']}"
    words = fact.device_words(facts) or "-"
    numbers = [driver or "-", "-" if group is None else str(group)]
    return [facts["address"], kind, facts["ids"], words, *numbers, fact.state_words(facts)]


def _groups(devices: "list[Facts]") -> "list[tuple[str, list[list[str]]]]":
    groups: dict[tuple[int, int], list[list[str]]] = {}
    for facts in devices:
        number = facts.get("iommu_group")
        key = (0, number) if number is not None else (1 if facts["kind"] == "pci" else 2, 0)
        groups.setdefault(key, []).append(_row(facts))
    titles = {1: "no IOMMU group", 2: "USB"}
    return [
        (titles.get(rank, f"IOMMU group {number}"), rows)
        for (rank, number), rows in sorted(groups.items())
    ]


def _remarks(host: "Host", inventory: "Inventory", devices: "list[Facts]") -> None:
    if inventory.unread is not None:
        complain(f"whose the devices are is unknown: {inventory.unread}")
    if not devices:
        try:
            host.sysfs.check_seen()
        except KernelError as error:
            complain(str(error))
    for facts in devices:
        if facts["unread"] is not None:
            complain(f"{facts['address']}: {facts['unread']}")
    for record in inventory.absent:
        complain(f"{fact.absent_words(host, inventory, record)}; see `hostdev status`")
    for facts in devices:
        if facts.get("replugged"):
            complain(f"{facts['address']}: {facts['replugged']}")
        if facts.get("unrecorded"):
            complain(Unrecorded(facts["address"], facts["kernel_driver"]))
