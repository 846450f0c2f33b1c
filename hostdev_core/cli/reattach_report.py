"""The report of `hostdev reattach`: each device that was given back, and each that was named and was not."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hostdev_core.bus.hubs import HubError, check_no_hub
from hostdev_core.cli.outcomes import describe_freed, outcome_text
from hostdev_core.connection import Connection
from hostdev_core.errors import KernelError, ReattachError
from hostdev_core.facts.use import describe_owner
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import look
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.model.assignment import Returned
from hostdev_core.model.device import USBDevice, UsedBy
from hostdev_core.model.domain import Domain, Hostdev, PCIHostdev, USBHostdev
from hostdev_core.model.record import Record
from hostdev_core.model.spelling import nearest
from hostdev_core.model.words import arguments


class NotHeld(NamedTuple):
    """A device that was named and is not the domain's, with the records that its name may mean."""

    name: str
    records: tuple[Record, ...]
    is_there: bool
    hub: str | None = None  # the message for a USB hub, which is there and is never lent

    @property
    def state(self) -> str:
        """Its state: `lent` (to another domain), `detached`, `free` or `unknown` (there is none)."""
        if any(record.owner is not None for record in self.records):
            return "lent"
        if self.records:
            return "detached"
        return "free" if self.is_there else "unknown"

    def document(self) -> dict[str, Any]:
        """Render it for JSON."""
        held = [_held(record) for record in self.records]
        return {"name": self.name, "state": self.state, "records": held}


class ReattachReport(NamedTuple):
    """A reattach's outcome: the devices given back, those that failed, and those the domain does not hold.

    `elsewhere` are records of the domain's name under another driver, connection or UUID; `similar` those
    of a domain with nearly this name, where nothing else can be reported.
    """

    domain: Domain
    uri: str
    returned: Returned
    others: Sequence[NotHeld]
    elsewhere: Sequence[Record]
    similar: Sequence[Record]
    program: Sequence[str]
    failed: Mapping[str, Exception]

    def document(self) -> dict[str, Any]:
        """Render the report for JSON."""
        return {
            "returned": [*self.returned],
            "gone": [*self.returned.gone],
            "replaced": [*self.returned.replaced],
            "freed": describe_freed(self.returned),
            "waiting": [*self.returned.waiting],
            "failed": {address: str(error) for address, error in self.failed.items()},
            "not_held": [*self.returned.not_held],
            "named_others": [each.document() for each in self.others],
            "held_elsewhere": [_held(record) for record in self.elsewhere],
            "held_by_similar": [_held(record) for record in self.similar],
        }

    def lines(self) -> Iterator[str]:
        """Render the report for people, a line at a time."""
        name = self.domain.name
        for address in self.returned:
            yield outcome_text(self.returned, address)
        for address in self.returned.waiting:
            yield f"{address} is free of {name}; it waits on its stub for the rest of its IOMMU group"
        if not self.returned and not self.returned.waiting and not self.failed:
            held = "none of these" if self.domain.hostdevs else "nothing"
            yield f"{name} holds {held} under {self.uri}"
        for device in self.others:
            yield from self._lines_of(device)
        for record in self.elsewhere:
            yield f"{record.address} is held by {record.owner}: `{self._command(record)}`"
        for record in self.similar:
            yield f"{record.address} is held by {record.owner}; did you mean `{self._command(record)}`?"

    def _lines_of(self, device: NotHeld) -> Iterator[str]:
        for record in device.records:
            whose = f"is held by {record.owner}" if record.owner else "was detached, for nobody"
            yield f"{_both(device.name, record)} {whose}: `{self._command(record)}`"
        if not device.records and device.hub:
            yield device.hub
        elif not device.records and device.is_there:
            yield f"{device.name} is held by nobody"
        elif not device.records:
            yield f"{device.name} is unknown: there is no such device, and no record of one"

    def _command(self, record: Record) -> str:
        """The command that gives a record's device back, for people to paste."""
        owner = record.owner
        if owner is None:
            return shlex.join((*self.program, "device", "reattach", record.address))
        uri = () if owner.uri == self.uri else ("-c", owner.uri)
        names = (owner.domain, record.address)
        uuid = ("--uuid", owner.uuid) if owner.uuid and owner.domain == self.domain.name else ()
        return shlex.join((*self.program, *uri, "reattach", *arguments(names, uuid)))


def make_report(
    conn: Connection,
    domain: Domain,
    returned: Returned,
    program: Sequence[str],
    failure: ReattachError | None = None,
) -> ReattachReport:
    """Compare a reattach's result with the ledger, and explain each device that was not given back.

    `failure` has the devices that failed; commands in the report begin with `program`.
    """
    host, records = conn.host, conn.host.ledger.records()
    driver = conn.hostdev_driver.name if conn.hostdev_driver else ""
    mine = UsedBy(domain.name, driver, conn.uri, domain.uuid)
    own = [r for r in records if r.owner and mine.is_same_owner(r.owner)]
    same_name = [r for r in records if r.owner and r.owner.domain == domain.name and r not in own]
    others = [*_find_not_held(host, domain, returned, [r for r in records if r not in own])]
    reported = {record.key for device in others for record in device.records}
    elsewhere = [record for record in same_name if record.key not in reported]
    failed = failure.by_device if failure else {}
    # A guess at a misspelt domain: only where there is nothing else to report, as it may be wrong.
    nothing = not (returned or returned.waiting or failed or others or same_name)
    similar = _similar(domain.name, records) if nothing else []
    return ReattachReport(domain, conn.uri, returned, others, elsewhere, similar, program, failed)


def _find_not_held(
    host: Host, domain: Domain, returned: Returned, records: Sequence[Record]
) -> Iterator[NotHeld]:
    hostdevs = {str(hostdev): hostdev for hostdev in domain.hostdevs}
    usb: list[USBDevice] = []  # read only when needed: a USB device's texts may take seconds
    if any(not isinstance(hostdevs[name], PCIHostdev) for name in returned.not_held):
        usb += look(host, tolerant=True, texts=True).usb.values()
    for name in dict.fromkeys(returned.not_held):
        hostdev = hostdevs[name]
        found = host.buses[hostdev.kind].find_records(hostdev, records, lambda: usb)
        hub = _hub_message(host, hostdev, usb)
        is_there = hub is not None or _is_there(host, hostdev, usb)
        yield NotHeld(name, tuple(found), is_there, hub)


def _is_there(host: Host, hostdev: Hostdev, usb: Sequence[USBDevice]) -> bool:
    if isinstance(hostdev, PCIHostdev):
        return host.sysfs.exists(f"{PCI_DEVICES}/{hostdev.address}")
    return any(device.matches(hostdev.selector) for device in usb)


def _hub_message(host: Host, hostdev: Hostdev, usb: Sequence[USBDevice]) -> str | None:
    """Make the message for a USB hub; None for any other device, and where sysfs cannot be read."""
    if isinstance(hostdev, USBHostdev):
        try:
            check_no_hub(host.sysfs, host.usb_texts, hostdev.selector, usb)
        except HubError as error:
            return str(error)
        except KernelError:
            pass  # the report goes on without it: the devices that were given back must be named
    return None


def _similar(name: str, records: Sequence[Record]) -> list[Record]:
    """Find the records of the domain whose name is nearest to this one."""
    names = {r.owner.domain for r in records if r.owner}
    near = nearest(name, names, 0.75) if names else None
    return [r for r in records if r.owner and r.owner.domain == near]


def _both(name: str, record: Record) -> str:
    return name if name == record.address else f"{name} ({record.address})"


def _held(record: Record) -> dict[str, Any]:
    return {"address": record.address, "used_by": describe_owner(record.owner)}
