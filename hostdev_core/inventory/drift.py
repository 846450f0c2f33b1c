"""Drift: records that no longer tell the truth. Only looks, and needs no driver."""

from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.errors import HostdevError, KernelError, StateError
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.words import way_back

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostdev_core.host import Host
    from hostdev_core.model.device import Device


class Drift(NamedTuple):
    """A record that no longer tells the truth: `what` is "gone", "replaced" or "rebound"."""

    kind: str
    address: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.address} is {self.what}: {self.detail}"


def is_there(host: "Host", record: Record) -> bool:
    """Whether a record's place is its device's: its IOMMU group, its PF, its controller."""
    return host.buses[record.kind].keeps_place(record)


def is_present(host: "Host", record: Record) -> bool:
    """Whether a record's device is there, and something may have been written for it."""
    bus = host.buses[record.kind]
    return bus.has_steps and bus.whereabouts(record) == "there"


def check_seen(host: "Host", records: "Iterable[Record]") -> None:
    """Raise KernelError where the devices of records could be there and not be seen."""
    for kind in {record.kind for record in records}:
        host.buses[kind].check_seen()


def check_hidden(host: "Host", record: Record) -> None:
    """The same for one whose device was not found: a mount over it alone hides it, too."""
    check_seen(host, [record])
    host.sysfs.inode(host.buses[record.kind].path(record.address))


def check_recorded(host: "Host", record: Record, device: "Device") -> None:
    """StateError when a device is not the one, or not where, its record at rest says.

    `device` is the one at its address now. A record that has changed by the time its device was looked
    at tells nothing of that.
    """
    try:
        check_same(host, record, device)
        _check_stub(host, record)
    except StateError:
        if record in host.ledger.records():
            raise
        raise StateError(
            f"the record of {record.address} was changed by somebody else meanwhile; try again"
        ) from None


def check_same(host: "Host", record: Record, now: "Device") -> None:
    """StateError when another device is where the record's was; `now` is the one at its address."""
    bus = host.buses[record.kind]
    where = bus.compare(record, now)
    if where == "there":
        bus.check_answers(record, now, host.deadlines.attribute)
        return
    since = "unplugged" if where == "gone" else where
    since = "unplugged and plugged in again" if bus.is_replugged(record, now) else since
    raise StateError(
        f"{record.address} is not the device that was {'lent' if record.owner else 'detached'}: it"
        f" was {since} since; `{way_back(record)}` ends its record and leaves the one that is there"
        " now alone; then try again (`hostdev device forget"
        f" {record.address} --as-is` does the same without asking its driver)"
    )


def check_there(host: "Host", records: "Iterable[Record]") -> None:
    """StateError when a device of a request is not there any more, or not the one that was claimed."""
    for record in records:
        host.buses[record.kind].check_there(record, host.deadlines.attribute)


def explain(host: "Host", record: Record, error: HostdevError) -> None:
    """Raise the cause of `error` where the device was pulled meanwhile; return where it is there.

    A KernelError stays one, with its facts: the kernel's word on a device that is gone tells little.
    """
    try:
        check_there(host, [record])
    except StateError as why:
        if not isinstance(error, KernelError):
            raise
        facts = {"path": error.path, "value": error.value}
        raise KernelError(f"{why}; {error}", errno=error.errno, **facts) from error


def _check_stub(host: "Host", record: Record) -> None:
    """StateError when a device that is lent or detached is not on its stub any more."""
    bus = host.buses[record.kind]
    if bus.has_steps and (driver := bus.kernel_driver(record.address)) != record.stub:
        raise StateError(
            f"{record.address} was rebound behind hostdev's back: it is on {driver or 'no driver'}, and"
            f" was put on {record.stub}; give it back first: `{way_back(record)}`"
        )


def find_drift(host: "Host", records: "Iterable[Record] | None" = None) -> list[Drift]:
    """Compare each record at rest with the kernel; nothing is changed.

    `records` are those of the ledger, where the caller has read them already. One that has changed
    by the time its device was looked at tells nothing.
    """
    known = host.ledger.records() if records is None else [*records]
    resting = [r for r in known if r.op is None and r.phase in {Phase.ACTIVE, Phase.INACTIVE}]
    present = {kind: host.buses[kind].present() for kind in {record.kind for record in resting}}
    seen = [
        (record, Drift(record.kind, record.address, what, detail))
        for record in resting
        for what, detail in host.buses[record.kind].drift(
            record, present[record.kind].get(record.address)
        )
    ]
    unchanged = {*host.ledger.records()} if seen else set[Record]()
    return [drift for record, drift in seen if record in unchanged]
