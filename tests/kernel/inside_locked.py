"""What the tests of locked devices call in the guest; see world.call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from pathlib import Path

from hostdev_core import Host
from hostdev_core.kernel.sysfs import Sysfs

from . import facts
from .inside_boot import BOOT_ID
from .inside_facts import Answers

LOCK = Path("/sys/module/lab_lock/parameters/device")


@contextlib.contextmanager
def kept(name: str) -> Generator[None]:
    """Keep the lock of a PCI or USB device meanwhile."""
    LOCK.write_text(name, encoding="ascii")
    try:
        yield
    finally:
        LOCK.write_text("\n", encoding="ascii")


def run_locked_facts(port: str, address: str) -> Answers:
    """What each fact about a locked device returned, and what is expected."""
    found: Answers = {}
    for name, every in ((port, facts.LOCKED_USB_FACTS), (address, facts.LOCKED_PCI_FACTS)):
        with kept(name):
            found |= {fact.name: (fact.run(Sysfs(), name), fact.expected_here()) for fact in every}
        for thread in threading.enumerate():  # the readers that waited
            if thread is not threading.current_thread():
                thread.join()
    return found


def run_sysctl_facts() -> Answers:
    """What each fact about the kernel's own settings returned, and what is expected."""
    every = facts.SYSCTL_FACTS
    return {fact.name: (fact.run(Host().texts, BOOT_ID), fact.expected_here()) for fact in every}
