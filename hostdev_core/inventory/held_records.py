"""Find the devices that a domain holds, by their records: not by what is there now.

A USB device that was unplugged or renumbered is still the one that was lent: its record has the port,
the number, the ids and the serial of then.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from hostdev_core.bus.bus import SAME
from hostdev_core.errors import KernelError, NotAssignableError
from hostdev_core.model.device import Device
from hostdev_core.model.domain import Hostdev
from hostdev_core.model.record import Record

if TYPE_CHECKING:
    from hostdev_core.host import Host


def find_held(
    host: "Host",
    hostdev: Hostdev,
    records: Iterable[Record],
    look: Callable[[], Sequence[Device]],
) -> Record | None:
    """Find the one record that a hostdev means; None when none is meant.

    NotAssignableError, naming the devices, when several match.
    """
    bus = host.buses[hostdev.kind]
    found = bus.find_records(hostdev, records, look)
    if len(found) > 1:
        raise _ambiguous(hostdev, [bus.told(record) for record in found])
    return found[0] if found else None


def _ambiguous(hostdev: Hostdev, rows: Sequence[str]) -> NotAssignableError:
    return NotAssignableError(
        f"{len(rows)} {hostdev.kind.upper()} devices that it holds match {hostdev}: {'; '.join(rows)}. Name"
        " one by its port; nothing was given back",
        device=str(hostdev),
        rule="ambiguous-device",
        evidence=rows,
    )


def find_gone(host: "Host", records: Iterable[Record]) -> dict[str, list[str]]:
    """Find the devices, among those of ended records, that are `gone`, and those of them `replaced`."""
    found: dict[str, list[str]] = {"gone": [], "replaced": []}
    for record in records:
        try:
            where = host.buses[record.kind].identify_present(record)
        except KernelError:
            where = "there"  # a device that is not seen is not gone
        if where not in SAME:
            found["gone"].append(record.address)
        if where == "replaced":
            found["replaced"].append(record.address)
    return found
