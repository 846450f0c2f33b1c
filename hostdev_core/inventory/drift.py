"""Drift: records that no longer tell the truth. Only looks, and needs no driver."""

import shlex
from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.bus.pci import read_driver
from hostdev_core.bus.usb import PATIENCE, see_usb
from hostdev_core.bus.usb_identity import has_number, is_like, is_replugged, is_same_usb
from hostdev_core.errors import HostdevError, KernelError, StateError
from hostdev_core.kernel.sysfs import PCI_DEVICES, USB_DEVICES
from hostdev_core.model.device import PCIDevice, USBDevice
from hostdev_core.model.record import Phase, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostdev_core.host import Host


class Drift(NamedTuple):
    """A record that no longer tells the truth: `what` is "gone", "replaced" or "rebound"."""

    kind: str
    address: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.address} is {self.what}: {self.detail}"


def whereabouts(host: "Host", record: Record) -> str:
    """Whether the record's PCI device is "there", "gone", or "replaced" by another card.

    KernelError where that cannot be seen: what is not seen is not gone.
    """
    inode = host.sysfs.inode(f"{PCI_DEVICES}/{record.address}")
    if inode is None:
        host.sysfs.check_seen(PCI_DEVICES)
        return "gone"
    return "there" if record.inode in {None, inode} else "replaced"


def is_there(host: "Host", record: Record) -> bool:
    """Whether what a record says of a PCI device's place is true: its group, its PF, its controller.

    The kernel gives the numbers of a device that is gone to the next one.
    """
    return record.kind != "pci" or whereabouts(host, record) == "there"


def compare(host: "Host", record: Record, usb: USBDevice | None = None) -> str:
    """Where a record's device is: "there" as it was taken, "gone", or "replaced" by another one.

    The one comparison of a record with what is at its address; `usb` is what is at a USB device's port
    now. One that came back under another number is "replaced", too: its guest may have lost it. One
    that does not answer is the same by all that can be told.
    """
    if record.kind == "pci":
        return whereabouts(host, record)
    if usb is None:
        return "gone"
    if not has_number(record, usb) or is_like(host.usb_texts, record, usb, PATIENCE) is False:
        return "replaced"
    return "there"


def standing(host: "Host", record: Record, usb: USBDevice | None = None) -> str:
    """The same, with "replugged" for a USB device that came back to its port under another number.

    It is the record's all the same, until that is ended: nobody else's.
    """
    where = compare(host, record, usb)
    return (
        "replugged" if where == "replaced" and is_replugged(host.usb_texts, record, usb) else where
    )


def way_back(record: Record) -> str:
    """The command that ends a record, whatever became of its device."""
    if record.owner is None:
        return f"hostdev device reattach {record.address}"
    return shlex.join(("hostdev", "reattach", record.owner.domain))


def ends(record: Record) -> str:
    """What to do about a record whose device is not there any more."""
    return f"`{way_back(record)}` ends its record"


def gives_back(record: Record) -> str:
    """The same about one whose device is there."""
    return f"`{way_back(record)}` gives it back"


def way_out(record: Record, doing: str | None) -> str | None:
    """What to do about a record that is in the way; `doing` is what is at work on it."""
    if doing is not None:
        return "try again when that has ended"
    return None if record.stuck else gives_back(record)


def replugged(host: "Host", record: Record, usb: USBDevice | None) -> str | None:
    """What to say of a USB device that came back under another number; None for any other."""
    return replug_words(record) if is_replugged(host.usb_texts, record, usb) else None


def replug_words(record: Record) -> str:
    """The same of one that is known to have come back so."""
    return (
        "it was unplugged and plugged in again: a guest that was given its number has lost it, one that"
        f" looks for its port or its ids may have it again; `{way_back(record)}`, then prepare it again"
    )


def check_seen(host: "Host", records: "Iterable[Record]") -> None:
    """Raise KernelError where the devices of records could be there and not be seen."""
    kinds = {record.kind for record in records}
    if "pci" in kinds:
        host.sysfs.check_seen(PCI_DEVICES)
    elif kinds:
        host.sysfs.check_bus(USB_DEVICES)


def check_hidden(host: "Host", record: Record) -> None:
    """The same for one whose device was not found: what is mounted over it alone hides it, too."""
    check_seen(host, [record])
    devices = PCI_DEVICES if record.kind == "pci" else USB_DEVICES
    host.sysfs.inode(f"{devices}/{record.address}")


def check_recorded(host: "Host", record: Record, device: PCIDevice | USBDevice) -> None:
    """StateError when a device is not what, or not where, its record at rest says.

    `device` is the one at its address now. A record that has changed by the time its device was looked
    at tells nothing of that.
    """
    try:
        check_same(host, record, device if isinstance(device, USBDevice) else None)
        _check_stub(host, record)
    except StateError:
        if record in host.ledger.records():
            raise
        raise StateError(
            f"the record of {record.address} was changed by somebody else meanwhile; try again"
        ) from None


def check_same(host: "Host", record: Record, usb: USBDevice | None = None) -> None:
    """StateError when another device is where the record's was; `usb` is the one at its port now."""
    where = compare(host, record, usb)
    if usb is not None and record.kind == "usb" and where == "there":
        is_same_usb(host.usb_texts, record, usb, host.deadlines.attribute)  # it answers
    if where != "there":
        since = "unplugged" if where == "gone" else where
        since = (
            "unplugged and plugged in again" if is_replugged(host.usb_texts, record, usb) else since
        )
        raise StateError(
            f"{record.address} is not the device that was {'lent' if record.owner else 'detached'}: it"
            f" was {since} since; `{way_back(record)}` ends its record and leaves the one that is there"
            " now alone; then try again (`hostdev device forget"
            f" {record.address} --as-is` does the same without asking its driver)"
        )


def check_there(host: "Host", records: "Iterable[Record]") -> None:
    """StateError when a device of a request is not there any more, or not the one that was claimed."""
    records = [*records]
    usb = _usb(host, records)
    for record in records:
        now = usb.get(record.address)
        if record.kind == "usb" and not (
            now and is_same_usb(host.usb_texts, record, now, host.deadlines.attribute)
        ):
            raise StateError(
                f"{record.address} was unplugged or replaced meanwhile: it was {record.usb}, and is"
                f" {now.identity if now else 'nothing'} now; try again"
            )
        where = whereabouts(host, record) if record.kind == "pci" else "there"
        if where == "gone":
            raise StateError(
                f"{record.address} was unplugged meanwhile; try again when it is plugged in"
            )
        if where == "replaced":
            raise StateError(
                f"{record.address} was replaced by another card meanwhile, which was left alone; try again"
            )


def explain(host: "Host", record: Record, error: HostdevError) -> None:
    """Raise what `error` comes from where the device was pulled meanwhile; return where it is there.

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
    """StateError when a PCI device that is lent or detached is not on its stub any more."""
    if record.kind == "pci" and (driver := read_driver(host.sysfs, record.address)) != record.stub:
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
    usb = _usb(host, resting)
    seen = [
        (record, drift)
        for record in resting
        for drift in (
            _drift_pci(host, record) if record.kind == "pci" else _drift_usb(host, record, usb)
        )
    ]
    unchanged = {*host.ledger.records()} if seen else set[Record]()
    return [drift for record, drift in seen if record in unchanged]


def _drift_pci(host: "Host", record: Record) -> list[Drift]:
    where = whereabouts(host, record)
    if where != "there":
        return [Drift("pci", record.address, where, _of_another(host, record, where))]
    driver = read_driver(host.sysfs, record.address)
    if driver == record.stub:
        return []
    verb = "lent" if record.owner else "detached"
    detail = f"on {driver or 'no driver'}, {verb} on {record.stub}"
    return [Drift("pci", record.address, "rebound", detail)]


def _of_another(host: "Host", record: Record, where: str) -> str:
    way = ends(record)
    if where == "gone":
        return f"no device is at this address; {way}"
    driver = read_driver(host.sysfs, record.address)
    if record.seizes(driver):
        return (
            f"another device is at this address, and what was left of the one that was there has taken"
            f" it to {driver}; {way} and lets it go to its own driver"
        )
    return f"another device is at this address; {way}"


def _usb(host: "Host", records: "Iterable[Record]") -> dict[str, USBDevice]:
    """The USB devices by port, where records of any are looked at."""
    any_usb = any(record.kind == "usb" for record in records)
    return {device.port: device for device in see_usb(host.sysfs)} if any_usb else {}


def _drift_usb(host: "Host", record: Record, present: dict[str, USBDevice]) -> list[Drift]:
    now = present.get(record.address)
    where = compare(host, record, now)
    if where == "there":
        return []
    way = replugged(host, record, now) or ends(record)
    told = host.usb_texts.fill([now], PATIENCE)[0].identity if now else "nothing"
    return [Drift("usb", record.address, where, f"lent as {record.usb}, now {told}; {way}")]
