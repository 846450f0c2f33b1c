"""The simulated kernel's uevents: one line each in a file, which SimulatedUdev follows."""

import json
import os

from hostdev_core.simulated.kernel.disk import APPEND, Disk


def events_file(disk: Disk) -> str:
    """The file that events are added to."""
    return f"{disk.memory}/events"


def note_event(disk: Disk, action: str, subsystem: str, name: str) -> None:
    """Send an event: `add`, `remove`, `bind` or `unbind`."""
    # One write with O_APPEND: lines of several processes do not mix.
    fd = os.open(events_file(disk), APPEND, 0o600)
    try:
        os.write(fd, json.dumps([action, subsystem, name]).encode() + b"\n")
    finally:
        os.close(fd)
