"""What the tests of boots call in the guest; see world.call."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import NamedTuple

from hostdev_core import Host

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Boot(NamedTuple):
    """What hostdev reads as the id of this boot, and the number of one that the ledger has."""

    id: str | None
    ledger: int


def boot() -> Boot:
    """Which boot this is, and which the ledger is of."""
    return Boot(Host().boot_id, ledger_number())


def ledger_number(number: int | None = None) -> int:
    """The number of the boot that wrote the ledger; with one given, that from now on, and its file
    is older than this boot.
    """
    path = Host().ledger.path
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as ledger:
        if number is not None:
            ledger.execute(f"PRAGMA application_id = {number}")
        found: int = ledger.execute("PRAGMA application_id").fetchone()[0]
    if number is not None:
        os.utime(path, (0, 0))
    return found


def read_at_once(path: str, size: int) -> str:
    """What one read(2) of so many bytes answers: the text, or the errno's name."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, size).decode()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        os.close(fd)


def said(*texts: str) -> list[str]:
    """Say this in the kernel's log while it is listened to; what was heard."""
    with open("/dev/kmsg", "wb", buffering=0) as log, Host().listen_to_kernel() as kernel:
        for text in texts:
            log.write(f"{text}\n".encode())
        return kernel.lines("hostdev-lab")


def said_more_than_fits() -> tuple[bool, list[str]]:
    """Say more than the kernel's log holds, then a last word: whether the log lost its beginning before
    it was read, and what was heard of the word.
    """
    with (
        open("/proc/sys/kernel/printk_devkmsg", "w") as limit,
        open("/dev/kmsg", "wb", buffering=0) as log,
        Host().listen_to_kernel() as kernel,
    ):
        print("on", file=limit, flush=True)  # nothing is held back
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(fd, 0, os.SEEK_END)
        for number in range(40_000):
            log.write(b"<7>hostdev-flood: %d %s\n" % (number, b"x" * 100))
        log.write(b"<7>hostdev-lab: last\n")
        try:
            os.read(fd, 8192)
        except OSError as error:
            return error.errno == errno.EPIPE, kernel.lines("hostdev-lab")
        finally:
            os.close(fd)
        return False, kernel.lines("hostdev-lab")
