"""What may have changed, as the kernel tells it; one who waits for that wakes up for nothing else."""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.kernel.inotify import (
    CLOSED_UNWRITTEN,
    CLOSED_WRITTEN,
    DIRECTORY_ONLY,
    ENDED,
    OF_A_DIRECTORY,
    OPENED,
    OVERFLOW,
    Inotify,
    Notice,
)
from hostdev_core.watching.differences import Key
from hostdev_core.watching.state_directory import StateDirectory

if TYPE_CHECKING:
    from hostdev_core.host import Host
    from hostdev_core.kernel.udev import DeviceEvent


class Changes(NamedTuple):
    """What is to be looked at: all, the ledger, these devices, or who has these nodes open.

    `ended` are operations whose file was closed by the last process that could write for them.
    """

    everything: bool = False
    ledger: bool = False
    devices: frozenset[Key] = frozenset()
    nodes: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()

    def plus(self, other: "Changes") -> "Changes":
        """Both together."""
        return Changes(
            self.everything or other.everything,
            self.ledger or other.ledger,
            self.devices | other.devices,
            self.nodes | other.nodes,
            self.ended | other.ended,
        )


NOTHING = Changes()
EVERYTHING = Changes(everything=True)


class Wakeups:
    """Listens, from its making on, to the kernel's events of devices, to the ledger and to device nodes.

    StateError where the kernel gives no more watches, or no events.
    """

    def __init__(self, host: "Host") -> None:
        self._buses = {os.path.basename(bus.root): bus for bus in host.buses.values()}
        self._inotify = Inotify()
        self._folders: dict[int, str] = {}
        try:
            self._monitor = host.udev.monitor(*self._buses)
            self._ledger = StateDirectory(self._inotify, host.state_dir)
        except BaseException:
            self._inotify.close()
            raise

    @property
    def descriptors(self) -> tuple[int, int]:
        """Those that are readable once something may have changed."""
        return self._monitor.fileno(), self._inotify.fileno()

    def watch_folders(self, folders: Collection[str]) -> None:
        """Hear of the nodes in these directories that are opened or closed; one that is not there is left."""
        for folder in {*folders} - {*self._folders.values()}:
            try:
                mask = OPENED | CLOSED_WRITTEN | CLOSED_UNWRITTEN | DIRECTORY_ONLY
                self._folders[self._inotify.add(folder, mask)] = folder
            except OSError:
                continue

    def drain(self) -> Changes:
        """Take all that was heard, without waiting."""
        # Devices first: a change of the ledger that came before one of these is heard with it.
        events = self._monitor.receive()
        found = EVERYTHING if events is None else Changes(devices=self._named(events))
        for notice in self._inotify.read():
            found = found.plus(self._heard(notice))
        return found

    def close(self) -> None:
        """Listen no more."""
        self._monitor.close()
        self._inotify.close()

    def _named(self, events: "list[DeviceEvent]") -> frozenset[Key]:
        buses = ((self._buses[event.subsystem], event.name) for event in events)
        named = ((bus.kind, bus.told_of(name)) for bus, name in buses)
        return frozenset((kind, device) for kind, device in named if device is not None)

    def _heard(self, notice: Notice) -> Changes:
        if notice.mask & OVERFLOW:
            self._ledger.listen()
            return EVERYTHING
        folder = self._folders.get(notice.watch)
        if folder is None:
            ledger, ended = self._ledger.heard(notice)
            return Changes(ledger=ledger, ended=ended)
        if notice.mask & ENDED:
            del self._folders[notice.watch]
            return NOTHING
        if notice.mask & OF_A_DIRECTORY or not notice.name:
            return NOTHING
        return Changes(nodes=frozenset({f"{folder}/{notice.name}"}))
