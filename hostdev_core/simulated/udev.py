"""The udev of a simulated host: properties from its sysfs, events from its kernel."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hostdev_core.simulated.disk import Disk, read
from hostdev_core.simulated.events import events_file
from hostdev_core.udev import DeviceEvent, Udev

_POLL = 0.005


class SimulatedUdev(Udev):
    """What the kernel tells, without rules and without the hardware database."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def properties(self, sys_path: str) -> dict[str, str]:
        """The words of a device's uevent, and the serial of a USB device."""
        lines = (read(os.path.join(sys_path, "uevent")) or "").splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        serial = read(os.path.join(sys_path, "serial"))
        return found | ({"ID_SERIAL_SHORT": serial.rstrip("\n")} if serial else {})

    def wait_for(self, path: str, timeout: float) -> bool:
        """Wait until a node exists; False when it does not within `timeout` seconds."""
        end = time.monotonic() + timeout
        while not os.path.exists(path):
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL)
        return True

    def events(self, *subsystems: str) -> Iterator[DeviceEvent]:
        """The events of these subsystems (all, without a name), for ever, from this call on."""
        path = events_file(self._disk)
        return self._follow(path, os.path.getsize(path), subsystems)

    def _follow(self, path: str, start: int, subsystems: tuple[str, ...]) -> Iterator[DeviceEvent]:
        with Path(path).open(encoding="utf-8") as file:
            file.seek(start)
            line = ""
            while True:
                line += file.readline()
                if not line.endswith("\n"):  # nothing, or somebody is still writing it
                    time.sleep(_POLL)
                    continue
                event, line = DeviceEvent(*json.loads(line)), ""
                if not subsystems or event.subsystem in subsystems:
                    yield event
