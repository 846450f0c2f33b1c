"""The devices that a listing is asked for: of a class, on a driver, in a group, in a state, with a word."""

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from hostdev_core.errors import InputError
from hostdev_core.facts.class_words import KINDS, is_kind
from hostdev_core.facts.use import CODES
from hostdev_core.model.address import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostdev_core.cli.options import Options

Description = dict[str, Any]
NONE = "none"
_SEARCHED = (
    *("address", "number", "ids", "class_name", "vendor_name", "device_name", "label", "serial"),
    *("kernel_driver", "physfn", "controller"),
)
_HAVING = {
    "net": "net",
    "storage": "block",
    "gpu": "drm",
}  # USB devices are of these classes by what they have


class Selection(NamedTuple):
    """What is asked for; of each kind of filter one must be true, and all of them."""

    classes: "Sequence[str]"
    drivers: "Sequence[str]"
    groups: "Sequence[str]"
    states: "Sequence[str]"
    words: "Sequence[str]"

    @classmethod
    def of(cls, options: "Options") -> "Selection":
        """Read it from the command line; InputError for a value that no device could have."""
        found = cls(
            [each.lower() for each in options.classes],
            options.drivers,
            options.iommu_groups,
            options.states,
            [word.casefold() for word in options.find],
        )
        for name in found.classes:
            if name not in KINDS and not _is_code(name):
                raise InputError(
                    f"{quoted(name)} is no class; wanted {', '.join(KINDS)}, or 2 to 6 hex digits of a code,"
                    " like 0200"
                )
        for name in found.groups:
            if name != NONE and not (name.isascii() and name.isdecimal()):
                raise InputError(f"{quoted(name)} is no IOMMU group; wanted a number, or {NONE}")
        for name in found.states:
            if name not in {*CODES, "free"}:
                raise InputError(f"{quoted(name)} is no state; there are: free, {', '.join(CODES)}")
        return found

    def takes(self, device: Description, *, whole: bool = False) -> bool:
        """Whether a device is asked for; its state counts only with `whole`, when all is known of it."""
        if whole and not _any(
            self.states, lambda name: name in {device["state"], device["use"]["code"]}
        ):
            return False
        return (
            _any(self.classes, lambda name: _is_of_class(device, name))
            and _any(self.drivers, lambda name: _is(device.get("kernel_driver"), name))
            and _any(self.groups, lambda name: _is(device.get("iommu_group"), name))
            and all(word in _words(device) for word in self.words)
        )


def _any(wanted: "Sequence[str]", is_so: "Callable[[str], bool]") -> bool:
    return not wanted or any(map(is_so, wanted))


def _is_code(name: str) -> bool:
    return 2 <= len(name) <= 6 and all(letter in "0123456789abcdef" for letter in name)


def _is_of_class(device: Description, name: str) -> bool:
    if "ids" not in device:  # one that is not there: nobody knows
        return False
    return is_kind(name, device.get("class")) or bool(device.get(_HAVING.get(name, "")))


def _is(value: Any, wanted: str) -> bool:
    if value is None:
        return wanted == NONE
    return fnmatchcase(str(value), wanted)


def _words(device: Description) -> str:
    texts = [device.get(name) or "" for name in _SEARCHED]
    for name in ("net", "block", "drm"):
        texts += device.get(name, ())
    texts.append(device["use"]["text"])
    return "\n".join(texts).casefold()
