"""`hostdev list`: all devices and their users. No connection is opened but for --lendable."""

from hostdev_core.cli.device_columns import COLUMNS, check, choose
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit, emit_json, print_error, prose, table
from hostdev_core.errors import KernelError
from hostdev_core.facts.facts import Facts
from hostdev_core.inventory.unrecorded import Unrecorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostdev_core.cli.selection import Selection
    from hostdev_core.facts.use import Description
    from hostdev_core.host import Host
    from hostdev_core.model.record import Record

# What is told below the table: what went wrong, or goes on. `foreign`, `gone` and the like are told on
# standard error, with what to do.
_TOLD = frozenset({"stuck", "left over", "preparing", "releasing", "rebound"})


def run(options: Options) -> int:
    """Print all devices, or those that are asked for."""
    selection = _selection(options)
    columns = choose(options.columns, all_facts=options.all_facts, in_groups=options.groups)
    if options.sort is not None:
        check(options.sort)
    facts = Facts.of(open_host(options), texts=True)
    devices = _sorted(options, _chosen(facts, selection, options, columns))
    absent = [
        (record, described)
        for record, described in absent_of(facts)
        if options.lendable is None
        and (selection is None or selection.takes(described, whole=True))
    ]
    gone = [described for _, described in absent]
    if options.json:
        emit_json({"devices": devices, "absent": gone, "ledger_error": facts.inventory.unread})
        return 0
    if options.quiet:
        emit("\n".join(device["address"] for device in devices))
    else:
        _show(options, columns, [*devices, *gone])
    remark(facts, devices, absent, is_asked=selection is not None)
    return 0


def _selection(options: Options) -> "Selection | None":
    """Read which devices are asked for; None for all. InputError for a value that no device could have."""
    if not any(
        (options.classes, options.drivers, options.iommu_groups, options.states, options.find)
    ):
        return None
    from hostdev_core.cli.selection import Selection

    return Selection.of(options)


def _chosen(
    facts: Facts, selection: "Selection | None", options: Options, columns: "list[str]"
) -> "list[Description]":
    """Describe the devices that are asked for, PCI first; only for these more is looked for."""
    chosen = [*facts.inventory.devices]
    if selection is not None:
        chosen = [device for device in chosen if selection.takes(facts.describe(device))]
    if options.all_facts:
        facts.look_closely(chosen)
    found = [facts.describe(device) for device in chosen]
    if options.all_facts or "numa" in columns:
        for device, described in zip(chosen, found, strict=True):
            described["numa_node"] = facts.numa_node(device)
    if selection is not None:
        found = [described for described in found if selection.takes(described, whole=True)]
    if options.lendable is not None:
        from hostdev_core.cli.commands.explain_devices import find_lendable

        lendable = find_lendable(options, [described["address"] for described in found])
        found = [described for described in found if described["address"] in lendable]
    return found


def absent_of(facts: Facts) -> "list[tuple[Record, Description]]":
    """Describe the records of devices that are not there."""
    if not facts.inventory.absent:
        return []
    from hostdev_core.facts.records import describe_absent

    inventory = facts.inventory
    return [(each, describe_absent(facts.host, inventory, each)) for each in inventory.absent]


def _sorted(options: Options, devices: "list[Description]") -> "list[Description]":
    return sorted(devices, key=COLUMNS[options.sort][2]) if options.sort else devices


def _show(options: Options, columns: "list[str]", devices: "list[Description]") -> None:
    cells = [COLUMNS[name][1] for name in columns]
    parts = _groups(devices) if options.groups else [("", devices)]
    sections = [(title, [[cell(each) for cell in cells] for each in part]) for title, part in parts]
    table([COLUMNS[name][0] for name in columns], sections)
    told = [*_told(devices, all_facts=options.all_facts)]
    if told:
        prose(["", *told])


def _told(devices: "list[Description]", *, all_facts: bool) -> "Iterator[str]":
    """Yield the lines below the table: the evidence that a person should have, or has asked for."""
    doubts: dict[str, None] = {}
    for device in devices:
        use, why = device["use"], "; ".join(device["use"]["evidence"])
        if use["code"] in _TOLD:
            yield f"{device['address']}: {use['text']}: {why}"
        elif all_facts and why and use["code"] == "available":
            doubts[why] = None
        elif all_facts and why:
            yield f"{device['address']}: {use['code']}: {why}"
    for why in doubts:  # mostly the same for all of them
        yield f"of what is available: {why}"


def _groups(devices: "list[Description]") -> "Iterable[tuple[str, list[Description]]]":
    # By rank and number: IOMMU groups come first, then PCI devices without one, then USB.
    groups: dict[tuple[int, int], list[Description]] = {}
    for device in devices:
        number = device.get("iommu_group")
        key = (0, number) if number is not None else (1 if device["kind"] == "pci" else 2, 0)
        groups.setdefault(key, []).append(device)
    titles = {1: "no IOMMU group", 2: "USB"}
    for (rank, number), members in sorted(groups.items(), key=lambda item: item[0]):
        yield titles.get(rank, f"IOMMU group {number}"), members


def remark(
    facts: Facts,
    devices: "list[Description]",
    absent: "list[tuple[Record, Description]]",
    *,
    is_asked: bool = False,
) -> None:
    """Print what could not be seen, or needs somebody; `is_asked`: these devices, of all, were asked for."""
    inventory = facts.inventory
    if inventory.unread is not None:
        print_error(f"whose the devices are is unknown: {inventory.unread}")
    if not devices and is_asked and not absent:
        print_error("no device is so; `hostdev list` shows those there are")
    elif not devices and not is_asked:
        _check_seen(facts.host)
    if facts.classes.unread is not None:
        print_error(f"what the host has of its devices is not known: {facts.classes.unread}")
    for device in devices:
        if device["unread"] is not None:
            print_error(f"{device['address']}: {device['unread']}")
    for record, _ in absent:
        from hostdev_core.facts.records import absent_text

        print_error(f"{absent_text(facts.host, inventory, record)}; see `hostdev status`")
    for device in devices:
        if device.get("replugged"):
            print_error(f"{device['address']}: {device['replugged']}")
        if device.get("unrecorded"):
            print_error(Unrecorded(device["address"], device["kernel_driver"]))
    if devices and facts.names.missing:
        print_error(facts.names.hint())


def _check_seen(host: "Host") -> None:
    """Say so where an empty list may mean that sysfs is not mounted here."""
    try:
        host.sysfs.check_seen()
    except KernelError as error:
        print_error(str(error))
