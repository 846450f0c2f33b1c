"""Read udev's database, follow its events and wait for them; no other module imports pyudev.

A listing must not use it: `pyudev.Context()` starts a process. Waiting for a node that is there costs one
look, and udev's database is read without pyudev.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pyudev as _pyudev

from hostdev_core.errors import InputError, StateError
from hostdev_core.model.address import PCIAddress

if TYPE_CHECKING:
    from hostdev_core.kernel.files import Machine

pyudev: Any = _pyudev  # brings no types
DATABASE = "run/udev/data"
# The subsystem of the devices that a driver makes of a PCI one, by the first digits of its class (pci.ids).
MADE = {"01": "block", "02": "net", "03": "drm", "0401": "sound", "0403": "sound", "0c03": "usb"}
STUBS = {"vfio-pci", "pci-stub", "pciback"}  # they make nothing for the host
# systemd-udevd writes the first for a network interface that it is about to rename, and removes it with the
# event of that; the second for any device while it handles its event (src/udev/udev-event.c).
_UNDONE = frozenset({"E:ID_RENAMING=1", "E:ID_PROCESSING=1"})
_QUEUE = "run/udev/queue"  # is there while it has events to handle (udev_queue_is_empty())
_QUIET = 1.0  # seconds
_LOOK = 0.25  # seconds; not everything that is waited for has an event of its own


class DeviceEvent(NamedTuple):
    """An event of the kernel or udev: `add`, `remove`, `bind`, `unbind` or `change` of a device."""

    action: str
    subsystem: str
    name: str


class Monitor:
    """The kernel's own events of some subsystems, from now on, for who waits for several things at once.

    Of the kernel, not of udev: they come without a udevd, and where another network namespace hides its
    messages, too.
    """

    def __init__(self, monitor: Any) -> None:
        self._monitor: Any = monitor

    def fileno(self) -> int:
        """The descriptor, readable while events wait."""
        return int(self._monitor.fileno())

    def receive(self) -> list[DeviceEvent] | None:
        """Take the events that wait; None when the kernel has dropped some, and which is not known."""
        found: list[DeviceEvent] = []
        is_whole = True
        while True:
            try:
                device = self._monitor.poll(0)
            except ValueError:  # as in _next()
                continue
            except OSError as error:
                if not _is_loss(self._monitor, error):
                    raise
                is_whole = False
                continue
            if device is None:
                return found if is_whole else None
            found.append(_event(device))

    def close(self) -> None:
        """Receive no more."""
        del self._monitor  # libudev closes with the last reference


class _Quiet:
    """Tells whether udev has been idle for a while, as far as one wait has watched it.

    An idle moment proves nothing: the event of a rename may still be on its way to udev.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._since: float | None = None

    def lasts(self) -> bool:
        """Look at udev's queue; tell whether it has been empty for long enough."""
        now = time.monotonic()
        if os.path.exists(self._queue):
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= _QUIET


def _next(monitor: Any, seconds: float | None = None) -> Any:
    """Wait for the next event and return its device; None when the time is over.

    None also for a message that was not udev's, and when messages were lost (ENOBUFS).
    """
    try:
        return monitor.poll(seconds)
    except ValueError:  # EINVAL of udev_monitor_receive_device(), as pyudev raises it
        return None
    except OSError as error:
        if not _is_loss(monitor, error):
            raise
        return None


def _is_loss(monitor: Any, error: OSError) -> bool:
    """Whether an error of a monitor says that messages were lost, ENOBUFS of netlink(7).

    pyudev's error for what poll(2) has seen at a socket has no number: the socket has it, and tells it once.
    """
    if error.errno is not None:
        return error.errno == errno.ENOBUFS
    import socket  # here: nearly nobody loses any

    with socket.socket(fileno=os.dup(monitor.fileno())) as same:
        return same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOBUFS


def _follow(monitor: Any) -> Iterator[DeviceEvent]:
    while True:
        if (device := _next(monitor)) is not None:
            yield _event(device)


def _event(device: Any) -> DeviceEvent:
    return DeviceEvent(device.action or "", device.subsystem or "", device.sys_name)


class Udev:
    """The udev of a machine, simulated ones too: its database, its events, and waits for them."""

    def __init__(self, host: "Machine") -> None:
        self._host = host

    @cached_property
    def _context(self) -> Any:
        return pyudev.Context()

    def properties(self, sys_path: str) -> dict[str, str]:
        """Read udev's properties of a device directory below /sys; empty without an entry.

        The kernel's own (uevent) are among them, and a read of these may wait for the device's lock.
        """
        try:
            device = pyudev.Devices.from_path(self._context, os.path.realpath(sys_path))
            return {str(key): str(value) for key, value in device.properties.items()}
        except (pyudev.DeviceNotFoundError, ImportError, OSError):
            return {}

    def recorded(self, sys_path: str) -> dict[str, str]:
        """Read udev's own properties of a device directory, below /sys or relative to it.

        From its database, which has a line "E:KEY=VALUE" for each, without a wait and without a process.
        Empty without an entry; KernelError for one that cannot be read.
        """
        entry = self._entry(sys_path.removeprefix(f"{self._host.sysfs.root}/"))
        text = (self._host.read_text(f"{DATABASE}/{entry}") if entry else None) or ""
        pairs = (line[2:].partition("=") for line in text.split("\n") if line.startswith("E:"))
        return {name: value for name, _, value in pairs}

    def wait_for(self, path: str, timeout: float, number: str | None = None) -> bool:
        """Wait until a node exists; False when it does not within `timeout` seconds.

        With a device's `number` ("511:0", as in sysfs) the node of another one, left in its place from
        before, does not count. A node that is there costs one look.
        """
        return self._wait(lambda: self._host.has_node(path, number), timeout)

    def settle(self, address: str, timeout: float, *subsystems: str) -> bool:
        """Wait until a device's driver has made its devices (interfaces, disks), and udev has set them up.

        `address` is a PCI address or a USB port; `subsystems` ("net", "block") are those of the devices to
        wait for: without any, the one that the class of a PCI device promises, once it is on a driver of
        the host's. False when they are not there within `timeout` seconds. A device that udev has given
        up counts as set up: systemd up to 252 leaves its mark at an interface whose rename failed.
        """
        bus, name = ("pci", PCIAddress.parse(address)) if ":" in address else ("usb", address)
        device = f"bus/{bus}/devices/{name}"
        quiet = _Quiet(self._host.path(_QUEUE))
        return self._wait(lambda: self._has_settled(device, subsystems, quiet), timeout)

    def events(self, *subsystems: str) -> Iterator[DeviceEvent]:
        """Return an endless iterator over the events of these subsystems (all, without a name) from now on.

        Raises StateError where no events can be had (no netlink).
        """
        return _follow(self._listen("udev", subsystems))

    def monitor(self, *subsystems: str) -> Monitor:
        """Listen to the kernel's events of these subsystems (all, without a name) from now on.

        Raises StateError where none can be had (no netlink).
        """
        return Monitor(self._listen("kernel", subsystems))

    def _listen(self, source: str, subsystems: tuple[str, ...]) -> Any:
        try:
            monitor = pyudev.Monitor.from_netlink(self._context, source)
            for subsystem in subsystems:
                monitor.filter_by(subsystem)
            monitor.start()
        except (OSError, ImportError) as error:
            raise StateError(f"no udev events on this machine: {error}") from error
        return monitor

    def _wait(self, is_there: Callable[[], bool], timeout: float) -> bool:
        if not (isinstance(timeout, (int, float)) and timeout >= 0):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"timeout={timeout!r:.80} is no number of seconds from 0 on")
        if is_there():
            return True
        end = time.monotonic() + timeout
        pause = self._pause()  # before the next look: from here on no event is missed
        while not is_there():
            left = end - time.monotonic()
            if left <= 0:
                return False
            pause(min(left, _LOOK))
        return True

    def _pause(self) -> Callable[[float], object]:
        """Make a function that waits for the next event, or for so many seconds at most."""
        try:
            monitor = pyudev.Monitor.from_netlink(self._context)
            monitor.start()
        except (OSError, ImportError):  # a container without netlink: look again and again
            return lambda seconds: time.sleep(min(seconds, _LOOK / 5))
        return lambda seconds: _next(monitor, seconds)

    def _has_settled(self, device: str, subsystems: tuple[str, ...], quiet: _Quiet) -> bool:
        sysfs = self._host.sysfs
        if not sysfs.exists(device):
            return False
        if not subsystems:
            driver = sysfs.link(f"{device}/driver")
            if driver is None or driver in STUBS or sysfs.exists(f"{device}/vfio-dev"):
                return True
            subsystems = tuple(self._promised(device))
        home = sysfs.real_path(device)
        if home is None:
            return False
        return all(self._is_made(f"{home}/", subsystem, quiet) for subsystem in subsystems)

    def _promised(self, device: str) -> Iterator[str]:
        class_ = (self._host.sysfs.glance(f"{device}/class") or "").removeprefix("0x")
        yield from (what for digits, what in MADE.items() if class_.startswith(digits))

    def _is_made(self, home: str, subsystem: str, quiet: _Quiet) -> bool:
        """Whether the device has descendants of this subsystem, and udev is done with each."""
        sysfs = self._host.sysfs
        folders = (f"class/{subsystem}", f"bus/{subsystem}/devices")
        paths = [f"{folder}/{name}" for folder in folders for name in sysfs.names(folder)]
        mine = [path for path in paths if ((sysfs.real_path(path) or "") + "/").startswith(home)]
        return bool(mine) and all(self._is_done(path, quiet) for path in mine)

    def _is_done(self, path: str, quiet: _Quiet) -> bool:
        if not os.path.isdir(self._host.path(DATABASE)):  # no udev here
            return True
        entry = self._entry(path)
        if entry is None:
            return True
        text = self._host.glance_text(f"{DATABASE}/{entry}")
        return text is not None and (_UNDONE.isdisjoint(text.splitlines()) or quiet.lasts())

    def _entry(self, path: str) -> str | None:
        """Name a device's entry in the database (sd-device of systemd): "b8:0", "n3", "+usb:1-1"."""
        sysfs = self._host.sysfs
        subsystem = sysfs.link(f"{path}/subsystem")
        if number := sysfs.glance(f"{path}/dev"):
            return f"{'b' if subsystem in {None, 'block'} else 'c'}{number}"
        if subsystem == "net" and (index := sysfs.glance(f"{path}/ifindex")):
            return f"n{index}"
        return None if subsystem is None else f"+{subsystem}:{os.path.basename(path)}"
