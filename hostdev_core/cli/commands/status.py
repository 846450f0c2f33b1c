"""`hostdev status`: what the ledger says. Opens no connection and loads no plugin."""

import time

from hostdev_core.cli import descriptions as fact
from hostdev_core.cli.options import Options, open_host
from hostdev_core.cli.output import complain, emit, emit_json, table
from hostdev_core.inventory.inventory import read_records
from hostdev_core.inventory.unrecorded import find_unrecorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.cli.descriptions import Facts
    from hostdev_core.host import Host
    from hostdev_core.inventory.unrecorded import Unrecorded
    from hostdev_core.model.record import Record

STUCK, DRIFT = 3, 5
HEADERS = ("ADDRESS", "STATE", "STUB", "FOUND ON", "RETURNS", "SINCE")


def run(options: Options) -> int:
    """Print the records; exit code 3 when something is stuck, else 5 when one is not true any more."""
    host = open_host(options)
    records = read_records(host)
    found = [fact.record_facts(host, record) for record in records]
    drifts = _drifts(host, records)
    stuck = [facts["address"] for facts in found if facts["state"] in fact.BAD]
    unrecorded = find_unrecorded(host, records)
    if options.json:
        more = {"unrecorded": [each._asdict() for each in unrecorded]} if unrecorded else {}
        emit_json({"records": found, "drift": drifts, "stuck": stuck, **more})
    else:
        _show(found, unrecorded)
        for each in unrecorded:
            complain(each)
        for drift in drifts:
            complain(f"{drift['address']} is {drift['what']}: {drift['detail']}")
    return STUCK if stuck else DRIFT if drifts else 0


def stuck_lines(host: "Host") -> "list[str]":
    """A line for each device that stands half way with nobody at work who could finish it soon."""
    found = (fact.record_facts(host, record) for record in read_records(host))
    return [f"{f['address']}: {fact.state_words(f)}" for f in found if f["state"] in fact.BAD]


def _drifts(host: "Host", records: "list[Record]") -> "list[Facts]":
    if not records:
        return []
    from hostdev_core.inventory.drift import find_drift

    return [drift._asdict() for drift in find_drift(host, records)]


def _show(found: "list[Facts]", unrecorded: "list[Unrecorded]") -> None:
    if not found and unrecorded:
        emit("no record of anything; what is on a stub driver all the same is lent to nobody known")
        return
    if not found:
        emit("nothing is lent, detached or stuck")
        return
    owners: dict[str, list[list[str]]] = {}
    for facts in found:
        owners.setdefault(_heading(facts), []).append(_row(facts))
    table(HEADERS, sorted(owners.items()))


def _heading(facts: "Facts") -> str:
    owner = facts["used_by"]
    if owner is None:
        return "inactive list"
    uuid = f", UUID {owner['uuid']}" if owner["uuid"] else ""
    return f"domain {owner['domain']} of {owner['driver']} ({owner['uri']}{uuid})"


def _row(facts: "Facts") -> "list[str]":
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["since"]))
    usb = facts["kind"] == "usb"
    stub = "-" if usb else facts["stub"] or "-"
    former = "-" if usb else facts["found"]["kernel_driver"] or "no driver"
    return [facts["address"], _state(facts), stub, former, facts["returns"], moment]


def _state(facts: "Facts") -> str:
    if facts["state"] == "stuck":
        return f"stuck: {facts['stuck']}"
    if facts["state"] in {"preparing", "releasing"}:
        return f"{facts['state']}: {facts['operation']}"
    words = {
        "sibling": "taken with its group",
        "waiting": "waits for its IOMMU group",
        "left over": "left over; `hostdev recover`",
    }
    return words.get(facts["state"], str(facts["state"]))
