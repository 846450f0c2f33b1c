"""Our own short words for the classes of devices, which need no file of names, and the words of `--class`.

The numbers are those of the PCI Code and ID Assignment Specification (include/linux/pci_ids.h has them).
"""

_WORDS = {
    "00": "old device",
    "01": "storage",
    "0100": "SCSI",
    "0101": "IDE",
    "0104": "RAID",
    "0105": "ATA",
    "0106": "SATA",
    "0107": "SAS",
    "0108": "NVMe",
    "02": "network",
    "0200": "Ethernet",
    "0207": "InfiniBand",
    "0280": "network",
    "03": "display",
    "0300": "VGA",
    "0302": "3D",
    "04": "multimedia",
    "0400": "video",
    "0401": "audio",
    "0403": "audio",
    "05": "memory",
    "0502": "CXL",
    "06": "bridge",
    "0600": "host bridge",
    "0601": "ISA bridge",
    "0604": "PCI bridge",
    "07": "serial port",
    "0780": "comm",
    "08": "system",
    "0805": "SD host",
    "0806": "IOMMU",
    "09": "input",
    "0a": "dock",
    "0b": "processor",
    "0c": "serial bus",
    "0c00": "FireWire",
    "0c03": "USB ctrl",
    "0c04": "FibreCh",
    "0c05": "SMBus",
    "0c06": "InfiniBand",
    "0d": "wireless",
    "0d11": "Bluetooth",
    "0e": "I/O proc",
    "0f": "satellite",
    "10": "crypto",
    "11": "signal proc",
    "12": "accelerator",
    "13": "instrument",
    "40": "coprocessor",
    "ff": "unassigned",
}
KINDS = {
    "net": ("02",),
    "nvme": ("0108",),
    "storage": ("01",),
    "gpu": ("03",),
    "audio": ("0401", "0403"),
    "usb": ("0c03",),
    "bridge": ("06",),
}
"""What a person calls several classes together, and the beginnings of their codes."""


def class_word(code: str) -> str | None:
    """A short word for a class by its six hex digits, its subclass's or its base class's; None for others."""
    return _WORDS.get(code[:4]) or _WORDS.get(code[:2])


def is_kind(kind: str, code: str | None) -> bool:
    """Whether a class (None for a USB device) is of a kind: a word of KINDS, or the first digits."""
    if code is None:
        return kind == "usb"
    return code.startswith(KINDS.get(kind) or (kind.lower(),))
