"""What others do to a device in the middle of our calls: what the tests call in the guest, see world.call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import NamedTuple, TypeVar

from hostdev_core import (
    Connection,
    Domain,
    Host,
    HostdevError,
    ReattachError,
    Registry,
    open_connection,
)
from hostdev_core.kernel.sysfs import Sysfs

from .inside import QEMU, records
from .inside_world import DEVICES, differences, state, world

NAME = "vm1"
Action = Callable[[Connection], object]
T = TypeVar("T")


def _lend(*devices: str) -> Action:
    return lambda conn: conn.prepare_hostdevs(Domain(NAME, devices))


def _give_back(conn: Connection) -> object:
    return conn.reattach_hostdevs(NAME)


def _nothing(conn: Connection) -> None:
    """Nothing has happened."""


class _Caller:
    """Makes calls as new processes do: each on a Host of its own."""

    def __init__(self) -> None:
        self._registry = Registry.from_entry_points()

    def call(self, action: Action, watcher: Callable[[str], None] | None = None) -> None:
        """Make a call."""
        host = Host()
        host.watch(watcher)
        with open_connection(QEMU, host=host, registry=self._registry) as conn:
            action(conn)

    def at_each_moment(
        self, before: Action, action: Action, somebody: Callable[[], T], *, but: str = ""
    ) -> Iterator[tuple[str, T, HostdevError | None]]:
        """Make a call once for each of its moments: the moment, what `somebody` got there, what was raised.

        Moments that contain `but` are passed over. At the end the devices are given back, before
        that whoever iterates does it.
        """
        for number in count(1):
            met: list[tuple[str, T]] = []
            moments = count(1)

            def watcher(what: str) -> None:
                if not (but and but in what) and next(moments) == number:  # noqa: B023
                    met.append((what, somebody()))  # noqa: B023

            self.call(before)
            error = None
            try:
                self.call(action, watcher)
            except HostdevError as raised:
                error = raised
            if not met:
                break
            yield (*met[0], error)
        self.call(_give_back)


class Opening(NamedTuple):
    """Somebody opened a device's VFIO group at a moment of its reattach.

    `had_it` says whether he could, `raised` what reattach said, "" for nothing; then the device's
    kernel driver, and who it is lent to.
    """

    moment: str
    had_it: bool
    raised: str
    kernel_driver: str | None
    lent_to: str | None


def open_at_each_moment(address: str) -> list[Opening]:
    """Open the group at each moment of a reattach, and keep it to the call's end."""
    group = os.path.basename(os.readlink(f"{DEVICES}/{address}/iommu_group"))

    def somebody() -> int | None:
        with suppress(OSError):
            return os.open(f"/dev/vfio/{group}", os.O_RDWR | os.O_CLOEXEC)
        return None

    caller, found = _Caller(), list[Opening]()
    for moment, fd, error in caller.at_each_moment(_lend(address), _give_back, somebody):
        record = records().get(address)
        owner = record.owner.domain if record and record.owner and record.is_lent else None
        driver = state(address).kernel_driver
        found.append(Opening(moment, fd is not None, _words(error), driver, owner))
        if fd is not None:
            os.close(fd)
        caller.call(_give_back)
    return found


def _words(error: HostdevError | None) -> str:
    """What was raised, or the first error of several: "Name: text"; "" for nothing."""
    if error is None:
        return ""
    first = error.exceptions[0] if isinstance(error, ReattachError) else error
    return f"{type(first).__name__}: {first}"


class Removal(NamedTuple):
    """A device was removed at a moment of a call.

    `raised` is what the call said, "" for nothing; `recorded` has a record then; `wrong` is
    what differs from before once all is given back and the device plugged in again.
    """

    moment: str
    raised: str
    recorded: list[str]
    wrong: str


def remove_from_a_prepare(address: str, other: str) -> list[Removal]:
    """Remove a device at each moment of a prepare of it and of another one, but for the other's writes."""
    return _removals(_nothing, _lend(other, address), address, but=other)


def remove_from_a_reattach(address: str, other: str) -> list[Removal]:
    """Remove a device at each moment of a reattach of it and of another one, but for the other's writes."""
    return _removals(_lend(other, address), _give_back, address, but=other)


def _removals(before: Action, action: Action, address: str, *, but: str) -> list[Removal]:
    home = world()

    def remove() -> None:
        Sysfs().write(f"bus/pci/devices/{address}/remove", "1")

    caller, found = _Caller(), list[Removal]()
    for moment, _, error in caller.at_each_moment(before, action, remove, but=but):
        recorded = sorted(records())
        caller.call(_give_back)
        Sysfs().write("bus/pci/rescan", "1")
        wrong = _differences_in_the_end(home)
        found.append(Removal(moment, _words(error), recorded, wrong))
    return found


def _differences_in_the_end(wanted: dict[str, str], seconds: float = 60.0) -> str:
    end = time.monotonic() + seconds
    while (now := world()) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    return differences(wanted, now)
