"""The file that describes a machine: JSON, one device on a line, with the attributes `hostdev` looks at.

The fields of an entry are the arguments of `SimulatedHost.add_pci`, `add_usb` and `add_driver`; one
that has its default is left out. docs/cli.md lists them.
"""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from hostdev_core.errors import InputError
from hostdev_core.model.address import quoted

FORMAT, VERSION = "hostdev-machine", 1
MAX_BYTES = 4 * 1024 * 1024
MAX_LENGTH = 1000


class PCIEntry(NamedTuple):
    """A PCI function; without `iommu_group` it is in none, without `header_type` it has its class's."""

    id: str
    class_: str
    subsystem: str = "0000:0000"
    revision: str = "00"
    kernel_driver: str | None = None
    driver_override: str | None = None
    iommu_group: int | None = None
    power_control: str = "on"
    header_type: int | None = None
    resets: str = ""
    parent: str | None = None
    physfn: str | None = None
    sriov_totalvfs: int = 0
    net: tuple[str, ...] = ()
    numa_node: int = -1
    unread: str | None = None


class USBEntry(NamedTuple):
    """A USB device or hub; `controller` None is one that is not on PCI, `bus` that of the port."""

    id: str
    device: int
    bus: int | None = None
    product: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    controller: str | None = None
    interfaces: dict[str, str | None] = {}
    hub: bool = False


class DriverEntry(NamedTuple):
    """A PCI driver; `option_ids` are those of `options MODULE ids=` in modprobe.d."""

    module: str | None = None
    loaded: bool = True
    variant_for: tuple[str, ...] = ()
    blacklisted: bool = False
    option_ids: tuple[str, ...] = ()


class Document(NamedTuple):
    """A whole machine; the keys of `pci` are addresses, of `usb` ports, of `drivers` names.

    `left_out`: a line for each device or driver that was there and is not described, with the reason.
    """

    kernel: str
    origin: str = ""
    comment: str = ""
    dom0: bool = False
    pciback_slots: tuple[str, ...] = ()
    drivers: dict[str, DriverEntry] = {}
    pci: dict[str, PCIEntry] = {}
    usb: dict[str, USBEntry] = {}
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Render the text of the file."""
        lines = [f' "format": {json.dumps(FORMAT)}', f' "version": {VERSION}']
        lines += (f" {json.dumps(key)}: {_block(value)}" for key, value in _plain(self).items())
        return "{\n" + ",\n".join(lines) + "\n}\n"


Entry = PCIEntry | USBEntry | DriverEntry | Document
E = TypeVar("E", PCIEntry, USBEntry, DriverEntry, Document)


def parse_document(data: bytes) -> Document:
    """Parse the file's content; an InputError names the place that is not of the form."""
    if len(data) > MAX_BYTES:
        raise InputError(f"it is longer than {MAX_BYTES} bytes; a machine of any size is shorter")
    try:
        content = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is no JSON ({error}); wanted what `hostdev capture` writes") from None
    content = _object(content)
    found = content.pop("format", None), content.pop("version", None)
    if found != (FORMAT, VERSION) or isinstance(found[1], bool):  # True == 1
        shown = " version ".join(map(quoted, found))
        raise InputError(f"its format is {shown}; this hostdev reads {FORMAT!r} version {VERSION}")
    document = _entry(Document, content)
    return document._replace(
        drivers=_table("drivers", DriverEntry, document.drivers),
        pci=_table("pci", PCIEntry, document.pci),
        usb=_table("usb", USBEntry, document.usb),
    )


@contextmanager
def within(*place: str) -> Generator[None, None, None]:
    """Put the place in front of an InputError's message."""
    try:
        yield
    except InputError as error:
        names = " ".join(word if word.isprintable() else quoted(word) for word in place)
        raise InputError(f"{names[:120]}: {error}") from None


def _table(name: str, kind: type[E], objects: Mapping[str, object]) -> dict[str, E]:
    table: dict[str, E] = {}
    for key, content in objects.items():
        with within(name, key):
            table[key] = _entry(kind, content)
    return table


def _entry(kind: type[E], data: object) -> E:
    content = _object(data)
    fields = {name.rstrip("_"): name for name in kind._fields}
    for key in content:
        if key not in fields:
            raise InputError(f"{quoted(key)} is no known key; wanted {', '.join(fields)}")
    for key, name in fields.items():
        if key not in content and name not in kind._field_defaults:
            raise InputError(f"{key} is missing")
    values: dict[str, Any] = {
        fields[key]: _checked(kind, fields[key], value) for key, value in content.items()
    }
    return kind(**values)


def _object(data: object) -> dict[str, object]:
    if not isinstance(data, dict):
        raise InputError(f"it is {quoted(data)}; wanted an object in braces")
    return cast("dict[str, object]", data)


def _checked(kind: type[Entry], name: str, value: object) -> object:
    is_so, wanted = _FORMS[kind.__annotations__[name]]
    if not is_so(value):
        raise InputError(f"{name.rstrip('_')} is {quoted(value)}; wanted {wanted}")
    return tuple(cast("list[str]", value)) if isinstance(value, list) else value


def _is_text(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= MAX_LENGTH
        and not {*"\0\r\n"} & {*value}
        # A lone surrogate, which JSON can escape, cannot be written to a file as UTF-8.
        and not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int in Python


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, cast("list[object]", value)))


def _is_map(value: object) -> bool:
    return isinstance(value, dict) and all(
        each is None or _is_text(each) for each in cast("dict[str, object]", value).values()
    )


_TEXT, _NUMBER = f"a text of one line, at most {MAX_LENGTH} letters", "a whole number"
_FORMS: dict[object, tuple[Callable[[object], bool], str]] = {
    str: (_is_text, _TEXT),
    str | None: (lambda value: value is None or _is_text(value), f"{_TEXT}, or null"),
    int: (_is_number, _NUMBER),
    int | None: (lambda value: value is None or _is_number(value), f"{_NUMBER}, or null"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    tuple[str, ...]: (_is_list, "a list of texts"),
    dict[str, str | None]: (_is_map, "an object with a text or null for each key"),
    **dict.fromkeys(
        (dict[str, DriverEntry], dict[str, PCIEntry], dict[str, USBEntry]),
        (lambda value: isinstance(value, dict), "an object in braces"),
    ),
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; InputError for a key that stands twice.

    json.loads() alone would keep the last of two without a word.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{quoted(key)} stands twice in one object; wanted each key once")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which json.loads() reads although JSON has none."""
    raise InputError(f"{name} is no number of JSON")


def _plain(entry: Entry) -> dict[str, Any]:
    """Select the fields that differ from their defaults."""
    return {
        name.rstrip("_"): value
        for name, value in zip(entry._fields, entry, strict=True)
        if name not in entry._field_defaults or value != entry._field_defaults[name]
    }


def _block(value: object) -> str:
    """Render a value on one line, a table with a line for each entry."""
    if not isinstance(value, dict):
        return json.dumps(value)
    # Sorted, so that diff(1) shows how two captures of a machine differ.
    table = cast("dict[str, PCIEntry | USBEntry | DriverEntry]", value)
    lines = (
        f"  {json.dumps(key)}: {json.dumps(_plain(entry), sort_keys=True)}"
        for key, entry in sorted(table.items())
    )
    return "{\n" + ",\n".join(lines) + "\n }"
