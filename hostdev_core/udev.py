"""The udev database and its events: the only importer of pyudev.

Never on the path of a listing: `pyudev.Context()` starts a process.
"""

import os
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import pyudev as _pyudev

from hostdev_core.errors import StateError

pyudev: Any = _pyudev  # brings no types


class DeviceEvent(NamedTuple):
    """What the kernel or udev said: `add`, `remove`, `bind`, `unbind` or `change` of a device."""

    action: str
    subsystem: str
    name: str


class Udev:
    """The udev of the running machine."""

    @cached_property
    def _context(self) -> Any:
        return pyudev.Context()

    def properties(self, sys_path: str) -> dict[str, str]:
        """udev's properties of a device directory below /sys; empty without an entry."""
        try:
            device = pyudev.Devices.from_path(self._context, os.path.realpath(sys_path))
            return {str(key): str(value) for key, value in device.properties.items()}
        except (pyudev.DeviceNotFoundError, ImportError, OSError):
            return {}

    def wait_for(self, path: str, timeout: float) -> bool:
        """Wait until a node exists; False when it does not within `timeout` seconds."""
        monitor = pyudev.Monitor.from_netlink(self._context, source="kernel")
        monitor.start()
        end = time.monotonic() + timeout
        while not os.path.exists(path):
            left = end - time.monotonic()
            if left <= 0:
                return False
            monitor.poll(left)
        return True

    def events(self, *subsystems: str) -> Iterator[DeviceEvent]:
        """The events of these subsystems (all, without a name), for ever, from this call on.

        Raises StateError where no events can be had (no netlink).
        """
        try:
            monitor = pyudev.Monitor.from_netlink(self._context)
            for subsystem in subsystems:
                monitor.filter_by(subsystem)
            monitor.start()
        except (OSError, ImportError) as error:
            raise StateError(f"no udev events on this machine: {error}") from error
        return (
            DeviceEvent(device.action or "", device.subsystem or "", device.sys_name)
            for device in iter(monitor.poll, None)
        )
