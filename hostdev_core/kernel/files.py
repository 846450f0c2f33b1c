"""Read text files outside /sys, in pieces, and without waiting for a pipe in their place."""

import os
from typing import Protocol

# A sysctl refuses to be read in one piece of megabytes: proc_sys_call_handler allocates them.
_PIECE = 1 << 16
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.kernel.sysfs import Sysfs


class Texts:
    """Reads the text files of one host; a simulated host has its own, which answer as its kernel does."""

    def fetch(self, path: str, size: int) -> bytes:
        """Read at most `size` bytes of a file; OSError when it cannot be read."""
        fd = os.open(path, _OPEN)
        data = bytearray()
        try:
            while piece := self._read(fd, path, min(_PIECE, size - len(data))):
                data += piece
        finally:
            os.close(fd)
        return bytes(data)

    def read_once(self, path: str, size: int) -> bytes:
        """Read a file with one read(2) of so many bytes; OSError when the kernel refuses it."""
        fd = os.open(path, _OPEN)
        try:
            return self._read(fd, path, size)
        finally:
            os.close(fd)

    def _read(self, fd: int, path: str, size: int) -> bytes:
        del path
        return os.read(fd, size)


class Machine(Protocol):
    """A Host, for the doors that hang on it."""

    sysfs: "Sysfs"

    @property
    def kernel_release(self) -> str: ...

    def path(self, path: str) -> str: ...

    def read_text(self, path: str) -> str | None: ...

    def glance_text(self, path: str) -> str | None: ...

    def has_node(self, path: str, number: str | None = None) -> bool: ...

    def tell_read(self, what: str) -> None: ...
