"""`hostdev device detach|reattach|reset|forget`: one device, for no domain."""

from hostdev_core.bus.pci import read_driver
from hostdev_core.cli.failures import REFUSED
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.outcomes import describe_freed, outcome_of, outcome_text
from hostdev_core.cli.output import emit, emit_json, pairs, print_error
from hostdev_core.cli.session import connected
from hostdev_core.errors import DeviceNotFoundError
from hostdev_core.facts.locked import describe_locked
from hostdev_core.facts.records import describe_record
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import read_records
from hostdev_core.model.address import parse_address
from hostdev_core.model.assignment import Returned
from hostdev_core.model.record import Record
from hostdev_core.model.spelling import one_letter_off
from hostdev_core.planning.conflicts import is_at_work, is_crashed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.facts.use import Description

DONE = {
    "detach": "is detached: on its stub driver, on the inactive list",
    "reattach": "is back as it was found",
    "reset": "was reset",
}


def run(options: Options) -> int:
    """Carry out the action on the device."""
    if options.action == "forget":
        return forget(options)
    returned = Returned()
    with connected(options) as conn:
        if options.action == "detach":
            conn.detach_device(options.device, allow=options.allow)
        elif options.action == "reset":
            conn.reset_device(options.device, allow=options.allow)
        else:
            returned = conn.reattach_device(options.device, to_host=options.to_host)
    name = str(parse_address(options.device))
    if options.json:
        outcome = outcome_of(returned, name) if options.action == "reattach" else None
        freed = {"freed": describe_freed(returned)} if options.action == "reattach" else {}
        emit_json({"address": name, "done": options.action, "outcome": outcome, **freed})
    elif options.to_host and name not in returned.gone:
        emit(f"{name} is on {read_driver(conn.host.sysfs, name)}, the host's own driver")
    elif name in returned.gone:
        emit(outcome_text(returned, name))
    else:
        emit(f"{name} {DONE[options.action]}")
    return 0


def forget(options: Options) -> int:
    """Delete a record; without --as-is only show it, and the device that this would accept."""
    if not options.as_is:
        host = open_host(options)
        record = _record(host, options.device)
        _show(options, host, record)
        print_error(
            f"{record.address} keeps its record; --as-is deletes it and accepts the device so"
        )
        return REFUSED
    with connected(options) as conn:
        record = conn.forget_device(options.device)
    _show(options, conn.host, record)
    return 0


def _record(host: Host, text: str) -> Record:
    wanted = parse_address(text)
    records = {record.address: record for record in read_records(host)}
    if record := records.get(str(wanted)):  # no two buses name their devices alike
        return record
    near = one_letter_off(str(wanted), records)
    meant = f"did you mean {near}? " if near else ""
    raise DeviceNotFoundError(
        f"hostdev has no record of {wanted}; {meant}`hostdev status` shows those there are",
        device=str(wanted),
    )


def _present(host: Host, record: Record) -> "Description":
    """Describe the device as it is now; `unread` says why driver_override, under its lock, was not read."""
    now: Description = {"unread": None}
    bus = host.buses[record.kind]
    if bus.has_steps:
        # A read of driver_override would wait for the lock that the operation, or the crash, keeps.
        busy = is_at_work(host.state_dir, record) or is_crashed(record)
        now = describe_locked(host, record.kind, record.address, busy=busy)
    return {
        "kernel_driver": bus.kernel_driver(record.address) if bus.has_steps else None,
        "driver_override": now.get("driver_override"),
        "unread": now["unread"],
    }


def _show(options: Options, host: Host, record: Record) -> None:
    """Print the record, and the device as it is now."""
    described = describe_record(host, record)
    present = _present(host, record)
    if options.json:
        emit_json({"record": described, "present": present, "forgotten": options.as_is})
        return
    found, unread = record.found, present["unread"]
    rows = [
        ("record", described["use"]["text"]),
        ("reason", "; ".join(described["use"]["evidence"]) or None),
        ("found on", found.kernel_driver or "no driver"),
        ("stub", record.stub),
    ]
    bus = host.buses[record.kind]
    if not host.sysfs.exists(bus.path(record.address)):
        rows.append(("now", "not there"))
    else:
        override = present["driver_override"] or ("not read" if unread else "none")
        rows.append(("now on", present["kernel_driver"] or "no driver"))
        rows += ("override now", override), ("not read", unread)
    title = f"forgotten: {record.address}" if options.as_is else record.address
    # Without steps, as on USB, a record has no driver and no stub to show.
    pairs(title, rows if bus.has_steps else rows[:1])
