"""Check each row of the ledger, and refuse values that hostdev cannot have written.

A row's texts become paths below /sys and words for modprobe(8); its steps are given to a driver.
"""

import json
from collections.abc import Callable
from typing import cast

from hostdev_core.model.address import PCIAddress, USBSelector
from hostdev_core.model.names import PATH_PART
from hostdev_core.model.record import Phase, Record

_FAR = 253402300800.0  # the year 10000, which no clock of a date reaches
_GROUPS = 1 << 31
_INODES = 1 << 63
_NAMES = ("op", "stub", "physfn", "controller")
_TEXTS = ("revision", "stuck")
_ALWAYS = ("modalias", "usb", "allowed")
IsName = Callable[[str, str], bool]


def is_device_name(kind: str, name: str) -> bool:
    """Whether a PCI or USB device may be named so; a host with other buses asks these, too."""
    try:
        if kind == "pci":
            return str(PCIAddress.parse(name)) == name
        return kind == "usb" and USBSelector.parse(name).port is not None
    except ValueError:
        return False


def check_row(record: Record, is_name: IsName) -> Record:
    """Return the record; ValueError naming a field with a value that hostdev cannot have written."""
    _need(is_name(record.kind, record.address), "address", record.address)
    _need(_is_name(record.backend), "backend", record.backend)
    _need(record.home in ("host", "inactive"), "home", record.home)
    values = record._asdict() | {f"found {name}": v for name, v in record.found._asdict().items()}
    for name in (*_NAMES, "found kernel_driver", "found module"):
        _need(values[name] is None or _is_name(values[name]), name, values[name])
    for name in (*_TEXTS, "found driver_override", "found power_control"):
        _need(values[name] is None or isinstance(values[name], str), name, values[name])
    for name in _ALWAYS:
        _need(isinstance(values[name], str), name, values[name])
    _need(_is_number(record.inode, _INODES), "inode", record.inode)
    _need(_is_number(record.group, _GROUPS), "IOMMU group", record.group)
    since = cast("object", record.since)
    _need(isinstance(since, (int, float)) and 0 <= since < _FAR, "since", since)
    _need(record.owner is None or _are_texts(record.owner), "owner", record.owner)
    _need(_are_steps(record.steps), "steps", record.steps)
    _check_phase(record)
    return record


def _check_phase(record: Record) -> None:
    """Check the fields that depend on the phase: undo data beyond the claim, an owner while lent only."""
    phase = record.phase
    unread = f"never read before it was {phase}"
    _need(record.confirmed or phase is Phase.PREPARING, "confirmed", unread)
    _need(record.owner is not None or phase is not Phase.ACTIVE, "owner", "of an active device")
    _need(record.owner is None or phase is not Phase.INACTIVE, "owner", record.owner)


def _need(good: bool, what: str, value: object) -> None:
    if not good:
        raise ValueError(f"{what} {value!r:.80}")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and PATH_PART.fullmatch(value) is not None


def _is_number(value: object, limit: int) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value < limit)


def _are_texts(owner: tuple[object, ...]) -> bool:
    *always, uuid = owner
    return all(isinstance(text, str) for text in always) and isinstance(uuid, str | None)


def _are_steps(text: object) -> bool:
    """Whether it is a list of [name, device, [argument, ...]], all of them texts."""
    try:
        steps: object = json.loads(cast("str", text))
    except (ValueError, TypeError, RecursionError):
        return False
    return isinstance(steps, list) and all(_is_step(step) for step in cast("list[object]", steps))


def _is_step(step: object) -> bool:
    if not isinstance(step, list) or len(cast("list[object]", step)) != 3:
        return False
    name, device, arguments = cast("list[object]", step)
    if not isinstance(arguments, list):
        return False
    return all(isinstance(text, str) for text in (name, device, *cast("list[object]", arguments)))
