"""The devices that a line of a log names, in the forms of all programs."""

import re

from hostdev_core.model.address import PCIAddress

_HEX = "0-9a-fA-F"
# libxl prints 0:1:0.0, others 0000:01:00.0 or 01:00.0.
_PCI = re.compile(
    rf"(?<![\w:.])(?:([{_HEX}]{{1,8}}):)?([{_HEX}]{{1,2}}):([{_HEX}]{{1,2}})\.([0-7])(?!\w|:[{_HEX}]{{2}})"
)
# QEMU prints 1:20 or is given hostbus=1,hostaddr=20, libvirt 001.020 or bus:1 device:20, hostdev 001:020.
_USB_NUMBER = re.compile(
    r"(?i)(?:usb device |hostbus=|\bbus:)([0-9]{1,3})(?:[:.]|,hostaddr=| device:)([0-9]{1,3})\b(?![:.][0-9])"
)
_USB_PORT = re.compile(r"\busb ([1-9][0-9]{0,2}-[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,6})\b")


def devices_in(line: str) -> tuple[str, ...]:
    """List the devices that a line names: `0000:01:00.0`, `001:020` or `1-1.5`, each once.

    A time of day may look like a PCI address: whether there is such a device is for the caller to see.
    """
    found = [
        str(PCIAddress(*(int(part or "0", 16) for part in match.groups())))
        for match in _PCI.finditer(line)
    ]
    found += (f"{int(m[1]):03}:{int(m[2]):03}" for m in _USB_NUMBER.finditer(line))
    found += (match[1] for match in _USB_PORT.finditer(line))
    return tuple(dict.fromkeys(found))
