"""hostdev's own side: whether the ledger is the host's, can be read, and tells the truth."""

from collections.abc import Iterator

from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.errors import NotPermittedError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import find_drift
from hostdev_core.inventory.inventory import read_records
from hostdev_core.inventory.unrecorded import find_unrecorded
from hostdev_core.model.record import Record
from hostdev_core.runtime.operation import describe, is_alive

PLACE = Code(
    "run-not-the-hosts",
    Level.PROBLEM,
    "The ledger here is not the host's: what is lent cannot be known, and changes are refused",
    "mount the host's /run/hostdev, and name it: `--state-dir DIR`, or HOSTDEV_STATE_DIR",
)
UNSEEN = Code(
    "ledger-unseen",
    Level.NOTE,
    "The ledger may not be read: what is lent or stuck was not looked at",
    "`sudo hostdev doctor`",
)
DAMAGED = Code(
    "ledger-damaged",
    Level.PROBLEM,
    "The ledger cannot be used",
    "`hostdev status` says why. Keep the file for a report, and move it away while nothing is lent",
)
TRUE = Code("records-true", Level.OK, "Every record agrees with its device")
STUCK = Code(
    "record-stuck",
    Level.PROBLEM,
    "A device is stuck",
    "`hostdev status` has the reason; `hostdev recover` tries again",
)
LEFT_OVER = Code(
    "record-left-over",
    Level.PROBLEM,
    "A killed command left a device half way",
    "`hostdev recover`",
)
DRIFT = Code(
    "record-drift",
    Level.PROBLEM,
    "A record does not tell the truth any more",
    "give the device back; `hostdev status` names each with its domain",
)
UNRECORDED = Code(
    "unrecorded-on-stub",
    Level.NOTE,
    "Devices are on stub drivers, and no record says why",
    "nothing, where somebody keeps them there for guests; else `hostdev device reattach DEVICE --to-host`",
)


def check_place(host: Host) -> Iterator[Finding]:
    """Whether /run is the host's."""
    if doubt := host.ledger_doubt():
        yield PLACE.found(doubt)


def check_records(host: Host) -> Iterator[Finding]:
    """The records: readable, at rest, and true."""
    if host.ledger_doubt():
        return
    try:
        records = read_records(host)
    except NotPermittedError as error:
        yield UNSEEN.found(str(error))
        return
    except StateError as error:
        yield DAMAGED.found(str(error))
        return
    found = [*_unsettled(host, records)]
    found += (
        DRIFT.found(f"{drift.address} is {drift.what}: {drift.detail}")
        for drift in (find_drift(host, records) if records else ())
    )
    yield from found
    if not found:
        count = len(records) or "no"
        yield TRUE.found(f"{host.state_dir}: {count} record{'' if count == 1 else 's'}")


def _unsettled(host: Host, records: list[Record]) -> Iterator[Finding]:
    for record in records:
        if record.stuck is not None:
            yield STUCK.found(f"{record.address}: {record.stuck}")
        elif record.op is not None and not is_alive(host.state_dir, record.op):
            told = describe(host.state_dir, record.op)
            yield LEFT_OVER.found(f"{record.address}: {record.phase}, by {told}")


def check_unrecorded(host: Host) -> Iterator[Finding]:
    """Devices on stubs that nobody wrote down; nothing where the records cannot be read."""
    try:
        found = find_unrecorded(host, read_records(host))
    except (NotPermittedError, StateError):
        return  # the other checks say so
    if found:
        rows = (f"{each.address} is on {each.kernel_driver}" for each in found)
        remedy = UNRECORDED.remedy.replace("DEVICE", found[0].address) if len(found) == 1 else ""
        yield UNRECORDED.found(*rows, remedy=remedy)


TOPIC = Topic(
    "Records",
    (PLACE, UNSEEN, DAMAGED, TRUE, STUCK, LEFT_OVER, DRIFT, UNRECORDED),
    (check_place, check_records, check_unrecorded),
)
