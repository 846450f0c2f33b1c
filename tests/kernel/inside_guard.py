"""What the guard's tests call in the guest; see world.call."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import sys
from collections.abc import Generator
from pathlib import Path

import hostdev_qemu
from hostdev_core import Connection, Domain, Refusal, Registry, VetoError, open_connection

PLUGIN = Path(__file__).resolve().parents[2] / "plugins/hostdev-guard"
CREATE, REMOVE, SUSPEND, LOAD = 3, 4, 6, 9  # linux/dm-ioctl.h
Refused = dict[tuple[str, str], tuple[str, ...]]


@contextlib.contextmanager
def guarded() -> Generator[Connection]:
    """A connection with the guard of this checkout."""
    sys.path.insert(0, str(PLUGIN))
    import hostdev_guard

    registry = Registry()
    registry.register(hostdev_qemu, name="qemu")
    registry.register(hostdev_guard.plugin, name="guard")
    with open_connection("qemu:///system", registry=registry) as conn:
        yield conn


def refused(*devices: str) -> Refused:
    """The evidence of each refusal to lend these devices, by device and rule."""
    with guarded() as conn:
        return _evidence(lambda: conn.plan(Domain("vm1", devices)))  # type: ignore[arg-type]


def detach(address: str, *allow: str) -> Refused:
    """Detach one device and give it back, or the evidence why not."""
    with guarded() as conn:
        answer = _evidence(lambda: conn.detach_device(address, allow=allow))
        if not answer:
            conn.reattach_device(address)
        return answer


def _evidence(call: object) -> Refused:
    assert callable(call)
    try:
        call()
    except VetoError as error:
        refusals = [each for each in error.refusals if isinstance(each, Refusal)]
        return {(each.device, each.rule): each.evidence for each in refusals}
    return {}


def map_device(name: str, number: str, sectors: int) -> None:
    """Make a linear device-mapper device over all of the block device of this "major:minor"."""
    table = f"{number} 0".encode() + b"\0"
    target = struct.pack("=QQiI16s", 0, sectors, 0, 0, b"linear") + table.ljust(64, b"\0")
    _mapper(CREATE, name)
    _mapper(LOAD, name, target)
    _mapper(SUSPEND, name)  # without the flag for it: resumed


def unmap_device(name: str) -> None:
    """Remove it."""
    _mapper(REMOVE, name)


def _mapper(command: int, name: str, target: bytes = b"") -> None:
    """One ioctl with struct dm_ioctl (312 bytes) and at most one target behind it."""
    size = 312 + len(target)
    count = 1 if target else 0
    head = struct.pack("=6I4IQ128s129s7x", 4, 0, 0, size, 312, count, 0, 0, 0, 0, 0,
                       name.encode(), b"")  # fmt: skip
    with open("/dev/mapper/control", "rb") as control:
        fcntl.ioctl(control, 3 << 30 | 312 << 16 | 0xFD << 8 | command, bytearray(head + target))
