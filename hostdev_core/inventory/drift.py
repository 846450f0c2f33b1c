"""Find drift: records that no longer agree with their device. Only looks, and needs no driver."""

from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.errors import HostdevError, KernelError, StateError
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.words import way_back

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostdev_core.host import Host
    from hostdev_core.model.device import Device


class Drift(NamedTuple):
    """A record that no longer agrees with its device: `what` is "gone", "replaced" or "rebound"."""

    kind: str
    address: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.address} is {self.what}: {self.detail}"


def owns_place(host: "Host", record: Record) -> bool:
    """Whether a record's group, PF and controller are still its device's (`Bus.owns_place`)."""
    return host.buses[record.kind].owns_place(record)


def may_be_changed(host: "Host", record: Record) -> bool:
    """Whether a record's device is there, and something may have been written for it."""
    bus = host.buses[record.kind]
    return bus.has_steps and bus.locate(record) == "there"


def check_seen(host: "Host", records: "Iterable[Record]") -> None:
    """Raise KernelError when devices of records could be there without being visible in sysfs."""
    for kind in {record.kind for record in records}:
        host.buses[kind].check_seen()


def check_hidden(host: "Host", record: Record) -> None:
    """Raise KernelError when the device of one record, which was not found, could be hidden by a mount."""
    check_seen(host, [record])
    host.sysfs.inode(host.buses[record.kind].path(record.address))


def check_recorded(host: "Host", record: Record, device: "Device") -> None:
    """Raise StateError when a device is another one than its record's, or not on the record's stub.

    `device` is the one at its address now. When the record itself was changed since it was read, the
    error says that instead.
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
    """Raise StateError when the device at a record's address, `now`, is not the one that was recorded."""
    bus = host.buses[record.kind]
    where = bus.identify(record, now)
    if where == "there":
        bus.check_answers(record, now, host.deadlines.attribute)
        return
    since = {"gone": "unplugged", "replugged": "unplugged and plugged in again"}.get(where, where)
    raise StateError(
        f"{record.address} is not the device that was {'lent' if record.owner else 'detached'}: it"
        f" was {since} since; `{way_back(record)}` ends its record and leaves the one that is there"
        " now alone; then try again (`hostdev device forget"
        f" {record.address} --as-is` does the same without asking its driver)"
    )


def check_there(host: "Host", records: "Iterable[Record]") -> None:
    """Raise StateError when the device of a record is gone, or is not the one that was claimed."""
    for record in records:
        host.buses[record.kind].check_there(record, host.deadlines.attribute)


def explain(host: "Host", record: Record, error: HostdevError) -> None:
    """Raise that the device was pulled, as the reason of `error`; return when the device is there.

    A KernelError stays one, and keeps its attributes; its message begins with the reason.
    """
    try:
        check_there(host, [record])
    except StateError as why:
        if not isinstance(error, KernelError):
            raise
        facts = {"path": error.path, "value": error.value}
        raise KernelError(f"{why}; {error}", errno=error.errno, **facts) from error


def _check_stub(host: "Host", record: Record) -> None:
    """Raise StateError when a device that is lent or detached is not on its stub any more."""
    bus = host.buses[record.kind]
    if bus.has_steps and (driver := bus.kernel_driver(record.address)) != record.stub:
        raise StateError(
            f"{record.address} was rebound behind hostdev's back: it is on {driver or 'no driver'}, and"
            f" was put on {record.stub}; give it back first: `{way_back(record)}`"
        )


def compare_with_kernel(host: "Host", records: "Iterable[Record]") -> list[tuple[Record, Drift]]:
    """Compare each of these records that is at rest with the kernel, and return those that disagree.

    A record may have changed while its device was looked at: the caller finds that out.
    """
    resting = [r for r in records if r.op is None and r.phase in {Phase.ACTIVE, Phase.INACTIVE}]
    present = {kind: host.buses[kind].present() for kind in {record.kind for record in resting}}
    return [
        (record, Drift(record.kind, record.address, what, detail))
        for record in resting
        for what, detail in host.buses[record.kind].drift(
            record, present[record.kind].get(record.address)
        )
    ]


def find_drift(host: "Host", records: "Iterable[Record] | None" = None) -> list[Drift]:
    """Compare each record at rest with the kernel; nothing is changed.

    `records` are those of the ledger, if the caller has read them already. A record that was changed
    while its device was looked at is left out.
    """
    seen = compare_with_kernel(host, host.ledger.records() if records is None else records)
    unchanged = {*host.ledger.records()} if seen else set[Record]()
    return [drift for record, drift in seen if record in unchanged]
