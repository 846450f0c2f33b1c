"""The udev of a simulated host: properties from its sysfs, events from its kernel."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hostdev_core.kernel.inotify import MODIFIED, Inotify
from hostdev_core.kernel.udev import DeviceEvent, Monitor, Udev
from hostdev_core.simulated.kernel import late
from hostdev_core.simulated.kernel.disk import Disk, check_regular, read
from hostdev_core.simulated.kernel.events import events_file

if TYPE_CHECKING:
    from hostdev_core.host import Host

_POLL = 0.005


class SimulatedMonitor(Monitor):
    """The events that are added to the kernel's file from now on; inotify tells that there are any."""

    def __init__(self, path: str, subsystems: tuple[str, ...]) -> None:
        check_regular(path)
        self._subsystems = subsystems
        self._inotify = Inotify()
        self._inotify.add(path, MODIFIED)
        self._file = Path(path).open("rb")  # noqa: SIM115 closed by `close`
        self._file.seek(0, os.SEEK_END)
        self._begun = b""

    def fileno(self) -> int:
        """The descriptor, readable while events wait."""
        return self._inotify.fileno()

    def receive(self) -> list[DeviceEvent]:
        """Take the events that wait; the simulated kernel drops none."""
        self._inotify.read()
        *lines, self._begun = (self._begun + self._file.read()).split(b"\n")
        events = [DeviceEvent(*json.loads(line)) for line in lines]
        return [e for e in events if not self._subsystems or e.subsystem in self._subsystems]

    def close(self) -> None:
        """Receive no more."""
        self._inotify.close()
        self._file.close()


class SimulatedUdev(Udev):
    """udev without rules and hardware database: the kernel's events, and properties that a test wrote."""

    def __init__(self, host: "Host", disk: Disk) -> None:
        super().__init__(host)
        self._disk = disk

    def properties(self, sys_path: str) -> dict[str, str]:
        """Read a device's properties: its uevent, a USB device's serial, and udev's database."""
        lines = (read(os.path.join(sys_path, "uevent")) or "").splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        serial = read(os.path.join(sys_path, "serial"))
        found |= {"ID_SERIAL_SHORT": serial.rstrip("\n")} if serial else {}
        return found | self.recorded(sys_path)

    def events(self, *subsystems: str) -> Iterator[DeviceEvent]:
        """Yield the events of these subsystems (all, without a name), for ever, from this call on."""
        path = events_file(self._disk)
        check_regular(path)
        return self._follow(path, os.path.getsize(path), subsystems)

    def monitor(self, *subsystems: str) -> Monitor:
        """Listen to the kernel's events of these subsystems from now on."""
        return SimulatedMonitor(events_file(self._disk), subsystems)

    def _wait(self, is_there: Callable[[], bool], timeout: float) -> bool:
        def is_there_by_now() -> bool:
            late.settle(self._disk)
            return is_there()

        return super()._wait(is_there_by_now, timeout)

    def _pause(self) -> Callable[[float], object]:
        """Return a short sleep: a late node announces itself by no event that could end a longer one."""
        return lambda seconds: time.sleep(min(seconds, _POLL))

    def _follow(self, path: str, start: int, subsystems: tuple[str, ...]) -> Iterator[DeviceEvent]:
        with Path(path).open(encoding="utf-8") as file:
            file.seek(start)
            line = ""
            while True:
                line += file.readline()
                if not line.endswith("\n"):  # nothing, or the writer is still at it
                    time.sleep(_POLL)
                    continue
                event, line = DeviceEvent(*json.loads(line)), ""
                if not subsystems or event.subsystem in subsystems:
                    yield event
