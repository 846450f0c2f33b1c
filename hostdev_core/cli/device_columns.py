"""The columns of a listing of devices: what each shows, and how it is sorted."""

from hostdev_core.cli.layout import Column
from hostdev_core.errors import InputError
from hostdev_core.facts.class_words import class_word
from hostdev_core.facts.facts import device_text
from hostdev_core.model.address import quoted

# Words at the end of a model's name by which it is not told from others.
_SPARE = frozenset(
    [
        "Adapter",
        "Bridge",
        "Card",
        "Connection",
        "Controller",
        "Device",
        "Ethernet",
        "Family",
        "Gigabit",
        "Host",
        "Network",
    ]
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Description = dict[str, Any]
    # What it looks like, its cell for a device, and its key for `--sort`.
    DeviceColumn = tuple[Column, Callable[[Description], str], Callable[[Description], Any]]


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _class(device: "Description") -> str:
    if "class" in device:
        return class_word(device["class"]) or device["class_name"] or f"class {device['class']}"
    return "USB" if device["kind"] == "usb" else "-"


def _names(device: "Description") -> str:
    found = [device["number"]] if "number" in device else []
    for class_ in ("net", "block", "drm"):
        found += device.get(class_, ())
    return " ".join(found) or "-"


def _text(name: str) -> "Callable[[Description], str]":
    return lambda device: device.get(name) or "-"


def _device(device: "Description") -> str:
    return (device_text(device) if "ids" in device else "") or "-"


def _state(device: "Description") -> str:
    return str(device["use"]["text"])


def _by_number(name: str) -> "Callable[[Description], Any]":
    def key(device: "Description") -> tuple[bool, int]:
        value = device.get(name)
        return value is None, value or 0  # those without come last

    return key


COLUMNS: "dict[str, DeviceColumn]" = {
    "address": (Column("ADDRESS", 12, "end"), lambda d: d["address"], lambda _: 0),
    "class": (Column("CLASS", 8), _class, _class),
    "ids": (Column("IDS", 9, optional=True), _text("ids"), _text("ids")),
    "device": (Column("DEVICE", 10, "end", spare=_SPARE), _device, _device),
    "driver": (Column("DRIVER", 8), _text("kernel_driver"), _text("kernel_driver")),
    "group": (Column("GROUP"), lambda d: _number(d.get("iommu_group")), _by_number("iommu_group")),
    "numa": (
        Column("NUMA", optional=True),
        lambda d: _number(d.get("numa_node")),
        _by_number("numa_node"),
    ),
    "names": (Column("NAMES", 7), _names, _names),
    "pf": (Column("PF", 12, "end"), _text("physfn"), _text("physfn")),
    "state": (Column("STATE", 18, "both", is_state=True), _state, _state),
}
"""By their names; `address` sorts as the devices are listed."""
USUAL = ("address", "class", "ids", "device", "driver", "group", "names", "state")
ALL_FACTS = (*USUAL[:-1], "numa", USUAL[-1])


def choose(text: str | None, *, all_facts: bool, in_groups: bool) -> list[str]:
    """The names of the columns that a text like "address,state" asks for; InputError for one that is none.

    Without a text the usual ones: that of the group only where the headings do not have it.
    """
    if text is None:
        usual = ALL_FACTS if all_facts else USUAL
        return [name for name in usual if name != "group" or not in_groups]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check(name)
    return names


def check(name: str) -> None:
    """Raise InputError for a name that is no column's."""
    if name not in COLUMNS:
        raise InputError(f"{quoted(name)} is no column; there are: {', '.join(COLUMNS)}")
