"""`hostdev status`: the records of the ledger. Opens no connection and loads no plugin."""

import time

from hostdev_core.cli.layout import Column
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import emit, emit_json, print_error, prose, table
from hostdev_core.facts.records import describe_record
from hostdev_core.inventory.inventory import UNSETTLED, read_records
from hostdev_core.inventory.unrecorded import find_unrecorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.facts.use import Description
    from hostdev_core.host import Host
    from hostdev_core.inventory.unrecorded import Unrecorded
    from hostdev_core.model.record import Record

STUCK, DRIFT = 3, 5  # exit codes; failures.py lists all
COLUMNS = (
    Column("ADDRESS", 12, "end"),
    Column("STATE", 10, is_state=True),
    Column("STUB", 8),
    Column("FOUND ON", 8),
    Column("RETURNS", 8),
    Column("SINCE", 19, optional=True),
)


def run(options: Options) -> int:
    """Print the records; exit code 3 when something is stuck, else 5 when a record is not true any more."""
    host = open_host(options)
    records = read_records(host)
    drifts = _drifts(host, records)
    drifted = {(each["kind"], each["address"]): (each["what"], each["detail"]) for each in drifts}
    found = [describe_record(host, record, drifted.get(record.key)) for record in records]
    stuck = [record["address"] for record in found if record["state"] in UNSETTLED]
    unrecorded = find_unrecorded(host, records)
    if options.json:
        more = {"unrecorded": [each._asdict() for each in unrecorded]} if unrecorded else {}
        emit_json({"records": found, "drift": drifts, "stuck": stuck, **more})
    else:
        _show(host, found, unrecorded)
        for each in unrecorded:
            print_error(each)
        for drift in drifts:
            print_error(f"{drift['address']} is {drift['what']}: {drift['detail']}")
    return STUCK if stuck else DRIFT if drifts else 0


def stuck_lines(host: "Host") -> "list[str]":
    """Render a line for each device that is stuck, or left over by an operation that is dead."""
    found = (describe_record(host, record) for record in read_records(host))
    return [line for each in found if each["state"] in UNSETTLED for line in use_lines(each)]


def use_lines(described: "Description") -> "list[str]":
    """Render the use of a device with what is known about it, a line for each part."""
    use = described["use"]
    return [f"{described['address']}: {use['text']}: {why}" for why in use["evidence"]]


def _drifts(host: "Host", records: "list[Record]") -> "list[Description]":
    if not records:  # the usual case loads and looks at nothing more
        return []
    from hostdev_core.inventory.drift import find_drift

    return [drift._asdict() for drift in find_drift(host, records)]


def _show(host: "Host", found: "list[Description]", unrecorded: "list[Unrecorded]") -> None:
    if not found and unrecorded:
        emit("no record of anything; what is on a stub driver all the same is lent to nobody known")
        return
    if not found:
        emit("nothing is lent, detached or stuck")
        return
    owners: dict[str, list[list[str]]] = {}
    for record in found:
        owners.setdefault(_heading(record), []).append(_row(host, record))
    table(COLUMNS, sorted(owners.items()))
    drifted = {"gone", "replaced", "rebound"}  # these are told below, on standard error
    told = [
        line for each in found if each["use"]["code"] not in drifted for line in use_lines(each)
    ]
    if told:
        prose(["", *told])


def _heading(record: "Description") -> str:
    owner = record["used_by"]
    if owner is None:
        return "inactive list"
    uuid = f", UUID {owner['uuid']}" if owner["uuid"] else ""
    return f"domain {owner['domain']} of {owner['driver']} ({owner['uri']}{uuid})"


def _row(host: "Host", record: "Description") -> "list[str]":
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["since"]))
    stub = former = "-"
    if host.buses[record["kind"]].has_steps:
        stub = record["stub"] or "-"
        former = record["found"]["kernel_driver"] or "no driver"
    return [record["address"], record["use"]["code"], stub, former, record["returns"], moment]
