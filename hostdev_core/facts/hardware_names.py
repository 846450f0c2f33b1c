"""Names of vendors, devices and classes, from hwdata's pci.ids and usb.ids.

The files are read once as bytes and searched only for the ids that are asked for: parsing all of
pci.ids takes longer than listing a machine. Format: the head of the files themselves.
"""

import os
import re

from hostdev_core.facts.class_words import class_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.host import Host

FOLDERS = (
    "usr/share/hwdata",
    "usr/share/misc",
    "usr/share",
    "var/lib/pciutils",
    "var/lib/usbutils",
)
LARGEST = 64 << 20  # bytes; the files have one or two million
_TOP = re.compile(rb"\n[^\t#\n]")
_HEX = re.compile("[0-9a-f]+")


class IdsFile:
    """One of the two files; where it is missing, every name is None."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._content: bytes | None = None
        self._blocks: dict[str, tuple[str, int, int] | None] = {}

    def top(self, key: str) -> str | None:
        """Find the name of an entry without indentation: a vendor ("8086"), a class ("C 02")."""
        block = self._block(key)
        return block[0] if block else None

    def below(self, key: str, *keys: str) -> str | None:
        """Find the name of the entry under `key` that these keys lead to, one level each."""
        block = self._block(key)
        if block is None:
            return None
        name, start, end = block
        for depth, inner in enumerate(keys, 1):  # each level is indented by one tab more
            mark = b"\n" + b"\t" * depth + inner.encode() + b"  "
            at = self._data.find(mark, start, end)
            if at < 0:
                return None
            name, start = self._line(at + len(mark))
            end = self._end_of(depth, start, end)
        return name

    @property
    def _data(self) -> bytes:
        if self._content is None:
            self._content = _read(self._path)
        return self._content

    def _block(self, key: str) -> tuple[str, int, int] | None:
        """Find an entry: its name, and the start and end of the lines below it."""
        if key not in self._blocks:
            mark = b"\n" + key.encode() + b"  "
            # Classes stand at the end of the files, vendors before them.
            at = self._data.rfind(mark) if key.startswith("C ") else self._data.find(mark)
            found = None
            if at >= 0:
                name, start = self._line(at + len(mark))
                following = _TOP.search(self._data, start)
                found = name, start, following.start() if following else len(self._data)
            self._blocks[key] = found
        return self._blocks[key]

    def _line(self, start: int) -> tuple[str, int]:
        end = self._data.find(b"\n", start)
        end = len(self._data) if end < 0 else end
        return self._data[start:end].decode("utf-8", "replace").strip(), end

    def _end_of(self, depth: int, start: int, end: int) -> int:
        # The next entry that is indented by as many tabs, or fewer, ends it.
        following = re.compile(b"\n\t{1,%d}[^\t#\n]" % depth).search(self._data, start, end)
        return following.start() if following else end


def _read(path: str | None) -> bytes:
    if path is None:
        return b""
    try:
        with open(path, "rb") as file:
            return b"\n" + file.read(LARGEST)  # a search for "\n8086" finds the first line, too
    except OSError:
        return b""


class Names:
    """The names in one machine's files; None for an id that they lack.

    Classes have names of our own beside. `missing` are the files that are nowhere.
    """

    def __init__(self, pci: str | None, usb: str | None) -> None:
        found = {"pci.ids": pci, "usb.ids": usb}
        self.missing = [name for name, path in found.items() if path is None]
        self._pci = IdsFile(pci)
        self._usb = IdsFile(usb)
        self._classes: dict[str, str | None] = {}
        self._devices: dict[tuple[str, str], tuple[str | None, str | None]] = {}

    @classmethod
    def of(cls, host: "Host") -> "Names":
        """Use a host's own files, or else the running machine's."""
        roots = dict.fromkeys((host.root, "/"))
        return cls(_find(roots, "pci.ids"), _find(roots, "usb.ids"))

    def hint(self) -> str:
        """Say which package brings the files that are missing."""
        return (
            f"{' and '.join(self.missing)} {'is' if len(self.missing) == 1 else 'are'} not here, and so"
            " names are missing: the package hwdata has them (on Debian pci.ids and usb.ids)"
        )

    def pci_class(self, code: str) -> str | None:
        """Find the name of a class by its six hex digits: its subclass's, or else its base class's.

        Without the file it is our own word for it; None for a class that we do not know either.
        """
        if code not in self._classes:
            name = None
            if _HEX.fullmatch(code):
                key = f"C {code[:2]}"
                name = self._pci.below(key, code[2:4]) or self._pci.top(key)
                name = name or class_word(code)
            self._classes[code] = name
        return self._classes[code]

    def pci(self, ids: str) -> tuple[str | None, str | None]:
        """Find the names of vendor and device for "8086:10d3"."""
        return self._look(self._pci, "pci", ids)

    def usb(self, ids: str) -> tuple[str | None, str | None]:
        """Find the names of vendor and product for "046d:c077"."""
        return self._look(self._usb, "usb", ids)

    def subsystem(self, ids: str, subsystem: str) -> str | None:
        """Find the name of a card ("8086:a01f") that a PCI device ("8086:10d3") sits on."""
        vendor, _, device = ids.partition(":")
        if not _HEX.fullmatch(vendor + device):
            return None
        return self._pci.below(vendor, device, subsystem.replace(":", " "))

    def _look(self, file: IdsFile, kind: str, ids: str) -> tuple[str | None, str | None]:
        key = kind, ids
        if key not in self._devices:
            vendor, _, device = ids.partition(":")
            names: tuple[str | None, str | None] = None, None
            if _HEX.fullmatch(vendor + device):
                names = file.top(vendor), file.below(vendor, device)
            self._devices[key] = names
        return self._devices[key]


def _find(roots: "dict[str, None]", name: str) -> str | None:
    paths = (os.path.join(root, folder, name) for root in roots for folder in FOLDERS)
    return next((path for path in paths if os.path.isfile(path)), None)
