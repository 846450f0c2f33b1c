"""What became of what `hostdev reattach` was asked for: each device that was named has its line."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import attrs

from hostdev_core.bus.hubs import HubError, check_no_hub
from hostdev_core.cli import descriptions as fact
from hostdev_core.connection import Connection
from hostdev_core.errors import KernelError, ReattachError
from hostdev_core.host import Host
from hostdev_core.inventory.held_records import matching
from hostdev_core.inventory.inventory import look
from hostdev_core.kernel.sysfs import PCI_DEVICES
from hostdev_core.model.assignment import Returned
from hostdev_core.model.device import USBDevice
from hostdev_core.model.domain import Domain, Hostdev, PCIHostdev, USBHostdev
from hostdev_core.model.owner import UsedBy
from hostdev_core.model.record import Record


@attrs.frozen
class Stranger:
    """What was named and is not the domain's, with the records that it may mean."""

    name: str
    records: tuple[Record, ...]
    is_there: bool
    hub: str | None = None  # what to say of one: it is there, and never anybody's

    @property
    def state(self) -> str:
        """`lent` (to others), `detached` (for nobody), `free` or `unknown` (there is none)."""
        if any(record.owner is not None for record in self.records):
            return "lent"
        if self.records:
            return "detached"
        return "free" if self.is_there else "unknown"

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        held = [_held(record) for record in self.records]
        return {"name": self.name, "state": self.state, "records": held}


@attrs.frozen
class Account:
    """What a reattach did, and what of that it was asked for it did not do."""

    domain: Domain
    uri: str
    returned: Returned
    strangers: Sequence[Stranger]
    elsewhere: Sequence[Record]
    similar: Sequence[Record]
    program: Sequence[str]
    failed: Mapping[str, Exception]

    def document(self) -> dict[str, Any]:
        """The answer as JSON."""
        return {
            "returned": [*self.returned],
            "gone": [*self.returned.gone],
            "replaced": [*self.returned.replaced],
            "freed": fact.freed_facts(self.returned),
            "waiting": [*self.returned.waiting],
            "failed": {address: str(error) for address, error in self.failed.items()},
            "not_held": [*self.returned.not_held],
            "named_others": [each.document() for each in self.strangers],
            "held_elsewhere": [_held(record) for record in self.elsewhere],
            "held_by_similar": [_held(record) for record in self.similar],
        }

    def lines(self) -> Iterator[str]:
        """The answer for people."""
        name = self.domain.name
        for address in self.returned:
            yield fact.outcome_words(self.returned, address)
        for address in self.returned.waiting:
            yield f"{address} is free of {name}; it waits on its stub for the rest of its IOMMU group"
        if not self.returned and not self.returned.waiting and not self.failed:
            what = "none of these" if self.domain.hostdevs else "nothing"
            yield f"{name} holds {what} under {self.uri}"
        for stranger in self.strangers:
            yield from self._of(stranger)
        for record in self.elsewhere:
            yield f"{record.address} is held by {record.owner}: `{self._command(record)}`"
        for record in self.similar:
            yield f"{record.address} is held by {record.owner}; did you mean `{self._command(record)}`?"

    def _of(self, stranger: Stranger) -> Iterator[str]:
        for record in stranger.records:
            whose = f"is held by {record.owner}" if record.owner else "was detached, for nobody"
            yield f"{_both(stranger.name, record)} {whose}: `{self._command(record)}`"
        if not stranger.records and stranger.hub:
            yield stranger.hub
        elif not stranger.records and stranger.is_there:
            yield f"{stranger.name} is held by nobody"
        elif not stranger.records:
            yield f"{stranger.name} is unknown: there is no such device, and no record of one"

    def _command(self, record: Record) -> str:
        """What gives a record's device back, to be pasted."""
        owner = record.owner
        if owner is None:
            return shlex.join((*self.program, "device", "reattach", record.address))
        uri = () if owner.uri == self.uri else ("-c", owner.uri)
        uuid = ("--uuid", owner.uuid) if owner.uuid and owner.domain == self.domain.name else ()
        return shlex.join((*self.program, *uri, "reattach", owner.domain, record.address, *uuid))


def take_account(
    conn: Connection,
    domain: Domain,
    returned: Returned,
    program: Sequence[str],
    failure: ReattachError | None = None,
) -> Account:
    """Look at what is left in the ledger of what was asked for.

    `failure` is what was not given back; commands that are named begin with `program`.
    """
    host, records = conn.host, conn.host.ledger.records()
    driver = conn.hostdev_driver.name if conn.hostdev_driver else ""
    mine = UsedBy(domain.name, driver, conn.uri, domain.uuid)
    own = [r for r in records if r.owner and mine.is_same_owner(r.owner)]
    namesakes = [r for r in records if r.owner and r.owner.domain == domain.name and r not in own]
    strangers = [*_strangers(host, domain, returned, [r for r in records if r not in own])]
    known = {record.key for stranger in strangers for record in stranger.records}
    elsewhere = [record for record in namesakes if record.key not in known]
    failed = failure.by_device if failure else {}
    nothing = not (returned or returned.waiting or failed or strangers or namesakes)
    similar = _similar(domain.name, records) if nothing else []
    return Account(domain, conn.uri, returned, strangers, elsewhere, similar, program, failed)


def _strangers(
    host: Host, domain: Domain, returned: Returned, records: Sequence[Record]
) -> Iterator[Stranger]:
    hostdevs = {str(hostdev): hostdev for hostdev in domain.hostdevs}
    usb: list[USBDevice] = []
    if any(not isinstance(hostdevs[name], PCIHostdev) for name in returned.not_held):
        usb += look(host, tolerant=True, texts=True).usb.values()
    for name in dict.fromkeys(returned.not_held):
        hostdev = hostdevs[name]
        found = matching(hostdev, records, lambda: usb)
        hub = _as_hub(host, hostdev, usb)
        is_there = hub is not None or _is_there(host, hostdev, usb)
        yield Stranger(name, tuple(found), is_there, hub)


def _is_there(host: Host, hostdev: Hostdev, usb: Sequence[USBDevice]) -> bool:
    if isinstance(hostdev, PCIHostdev):
        return host.sysfs.exists(f"{PCI_DEVICES}/{hostdev.address}")
    return any(device.matches(hostdev.selector) for device in usb)


def _as_hub(host: Host, hostdev: Hostdev, usb: Sequence[USBDevice]) -> str | None:
    """What to say of a USB hub; None for anything else, and where that cannot be seen."""
    if isinstance(hostdev, USBHostdev):
        try:
            check_no_hub(host.sysfs, host.usb_texts, hostdev.selector, usb)
        except HubError as error:
            return str(error)
        except KernelError:
            pass
    return None


def _similar(name: str, records: Sequence[Record]) -> list[Record]:
    """What a domain holds whose name is nearly this one."""
    names = {r.owner.domain.casefold(): r.owner.domain for r in records if r.owner}
    near = get_close_matches(name.casefold(), names, n=1, cutoff=0.75)
    return [r for r in records if r.owner and near and r.owner.domain.casefold() == near[0]]


def _both(name: str, record: Record) -> str:
    return name if name == record.address else f"{name} ({record.address})"


def _held(record: Record) -> dict[str, Any]:
    return {"address": record.address, "used_by": fact.owner_facts(record.owner)}
