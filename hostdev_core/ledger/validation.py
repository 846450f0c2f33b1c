"""Check each row of the ledger, and refuse values that hostdev cannot have written.

A row's texts become paths below /sys and words for modprobe(8); its steps are given to a driver.
"""

import json
from collections.abc import Callable, Iterable
from typing import cast

from hostdev_core.model.address import PCIAddress, USBSelector
from hostdev_core.model.names import PATH_PART
from hostdev_core.model.record import Phase, Record

_FAR = 253402300800.0  # the year 10000, which no clock of a date reaches
_GROUPS = 1 << 31
_INODES = 1 << 63
_NAMES = ("backend", "op", "stub", "physfn", "controller", "found kernel_driver", "found module")
_TEXTS = ("revision", "stuck", "found driver_override", "found power_control")
_ALWAYS = ("backend", "home", "modalias", "usb", "allowed")
_TEXT: frozenset[object] = frozenset({str})
_TEXT_OR_NONE: frozenset[object] = frozenset({str, type(None)})
_TIMES: frozenset[object] = frozenset({int, float})
_NUMBERS: frozenset[object] = frozenset({int, type(None)})
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
    found, r = record.found, record
    if not is_name(r.kind, r.address):
        raise _wrong("address", r.address)
    _check_types(_ALWAYS, (r.backend, r.home, r.modalias, r.usb, r.allowed), _TEXT)
    _check_types(_TEXTS, (r.revision, r.stuck, found.driver_override, found.power_control))
    names = (r.backend, r.op, r.stub, r.physfn, r.controller, found.kernel_driver, found.module)
    _check_types(_NAMES, names)
    # Of all by one call: a wrong one is looked for only where there is one.
    if not all(map(PATH_PART.fullmatch, [name for name in names if name is not None])):
        raise next(
            _wrong(what, name)
            for what, name in zip(_NAMES, names, strict=True)
            if name is not None and not PATH_PART.fullmatch(name)
        )
    if r.home not in ("host", "inactive"):
        raise _wrong("home", r.home)
    _check_numbers(record)
    _check_owner(record)
    if r.left_traces and not _are_steps(r.steps):
        raise _wrong("steps", r.steps)
    return record


def _check_types(
    names: Iterable[str], values: Iterable[object], types: frozenset[object] = _TEXT_OR_NONE
) -> None:
    """Raise for a value that is none of these types; a text of a type of its own is one, too."""
    if not types.issuperset(map(type, values)):
        for name, value in zip(names, values, strict=True):
            if type(value) not in types and not (str in types and isinstance(value, str)):
                raise _wrong(name, value)


def _check_numbers(record: Record) -> None:
    _check_types(("inode", "IOMMU group"), (record.inode, record.group), _NUMBERS)
    if record.inode is not None and not 0 <= record.inode < _INODES:
        raise _wrong("inode", record.inode)
    if record.group is not None and not 0 <= record.group < _GROUPS:
        raise _wrong("IOMMU group", record.group)
    _check_types(("since",), (record.since,), _TIMES)
    if not 0 <= record.since < _FAR:
        raise _wrong("since", record.since)


def _check_owner(record: Record) -> None:
    """Check the owner, and the fields that depend on the phase: undo data, an owner while lent only."""
    phase, owner = record.phase, record.owner
    if owner is not None:
        _check_types(("owner",) * 4, (*owner[:3], "" if owner.uuid is None else owner.uuid), _TEXT)
    if not record.confirmed and phase is not Phase.PREPARING:
        raise _wrong("confirmed", f"never read before it was {phase}")
    if owner is None and phase is Phase.ACTIVE:
        raise _wrong("owner", "of an active device")
    if owner is not None and phase is Phase.INACTIVE:
        raise _wrong("owner", owner)


def _wrong(what: str, value: object) -> ValueError:
    return ValueError(f"{what} {value!r:.80}")


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
