"""A known message as a value: how programs print it, its cause and its remedy."""

import re
from enum import StrEnum
from typing import NamedTuple

PLACES = {
    "group": r"(?P<group>[0-9]{1,9})",
    "number": r"-?[0-9]{1,20}",
    "hex": r"(?:0x)?[0-9a-fA-F]{1,32}",
    "word": r"[^\s]{1,96}",
    "text": r"[^\n]{0,200}?",
}
"""What may stand in a pattern's `{place}`. Each is bounded, so that a match in any text is, too."""
LONGEST = 1000
"""No match is longer: literal text and places together, in characters."""
_PLACE = re.compile(r"\{(\w+)\}")


class Symptom(StrEnum):
    """What a person notices; the sections of docs/known-errors.md, in this order."""

    GROUP = "The IOMMU group is not taken"
    ACCESS = "A node of VFIO cannot be opened"
    IOMMU = "The IOMMU is off, or refuses the device"
    BUSY = "Somebody has the device"
    BIND = "The stub driver does not take the device, or does not let it go"
    NAME = "The device is not found, or named wrongly"
    MEMORY = "Memory cannot be mapped"
    INTERRUPTS = "Interrupts cannot be set up"
    RESET = "The device cannot be reset, or does not come back"
    POWER = "The device does not wake up"
    DISPLAY = "Graphics and option ROMs"
    VF = "Virtual functions (SR-IOV)"
    USB = "USB devices"
    HOTPLUG = "A running guest: plugging, unplugging, migration"
    FAULT = "The device or its guest does what it may not"


class Wording(NamedTuple):
    """One way in which a program prints a message.

    `pattern` is literal text with places, `{group}` or `{word}`; it begins with a literal. `example` is a
    whole line with it. `source` is the file and the function of the program, `versions` are those that the
    text was read in.
    """

    pattern: str
    example: str
    source: str
    versions: str

    @property
    def anchor(self) -> str:
        """The longest literal of the pattern: where it is not, no match can be."""
        return max(_PLACE.split(self.pattern)[::2], key=len)

    def compiled(self) -> re.Pattern[str]:
        """Compile the pattern."""
        parts = _PLACE.split(self.pattern)
        parts[::2] = map(re.escape, parts[::2])
        parts[1::2] = (PLACES[name] for name in parts[1::2])
        return re.compile("".join(parts))


class KnownError(NamedTuple):
    """A known message: `cause` and `remedy` are sentences, `commands` are to be run.

    In commands DEVICE, GROUP and DOMAIN stand for those that the message is about; NAME, FILE and PID for
    others.
    """

    name: str
    program: str
    symptom: Symptom
    cause: str
    remedy: str
    commands: tuple[str, ...]
    wordings: tuple[Wording, ...]
