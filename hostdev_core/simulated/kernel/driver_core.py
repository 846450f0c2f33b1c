"""The driver core: bind, unbind, probe, as in the kernel's drivers/base/dd.c and bus.c.

The `driver` link of a device is the one truth about its binding. All else (the link in the driver's
directory, nodes, interfaces) follows from it and is put right at the next bind or unbind of the
device when a process was killed in the middle.
"""

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from hostdev_core.simulated.kernel import pci_domains as domains
from hostdev_core.simulated.kernel import pciback, vfio
from hostdev_core.simulated.kernel.class_devices import settle_class_devices
from hostdev_core.simulated.kernel.device import (
    Device,
    busy_link,
    current_driver,
    fail,
    find_device,
    locked_device,
)
from hostdev_core.simulated.kernel.disk import Disk, last_part, link, names, read, unlink
from hostdev_core.simulated.kernel.drivers import Driver, Drivers
from hostdev_core.simulated.kernel.events import note_event

EPROBE_DEFER = 517
Pause = Callable[[], None]


def no_pause() -> None:
    """The pause of a driver's own code where no fault was asked for: none."""


class Core:
    """Binds and unbinds; `pause` is called where the driver's own probe or remove would run."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.drivers = Drivers(disk)

    def bind(self, name: str, text: str, pause: Pause) -> None:
        """Carry out a write to a driver's `bind`."""
        driver = self.drivers.get(name)
        device = find_device(self.disk, _line(text))
        if device is None or driver is None or not self.matches(driver, device):
            fail(errno.ENODEV)
        with self._settled(device):
            number = abs(self._probe(driver, device, pause))
        if number:  # device_driver_attach() shows no EPROBE_DEFER
            fail(errno.EAGAIN if number == EPROBE_DEFER else number)

    def unbind(self, name: str, text: str, pause: Pause = no_pause) -> None:
        """Carry out a write to a driver's `unbind`."""
        device = find_device(self.disk, _line(text))
        if device is None or current_driver(self.disk, device) != name:
            fail(errno.ENODEV)
        with self._settled(device):
            # Looked at again under the lock, as device_release_driver_internal() does.
            if device.driver == name:
                self.detach(device, pause)

    def release_driver(self, device: Device) -> None:
        """Take a device that is about to go off its driver, also after a killed process's work on it."""
        with self._settled(device):
            self.detach(device)

    def probe_device(self, text: str, pause: Pause) -> None:
        """Carry out a write to the bus's `drivers_probe`."""
        device = find_device(self.disk, _line(text))
        if device is None:
            fail(errno.ENODEV)
        if current_driver(self.disk, device) is None and self.attach(device, pause) < 0:
            fail(errno.EINVAL)

    def attach(self, device: Device, pause: Pause = no_pause) -> int:
        """Let each driver try: 1 when bound, 0 when none wants it, a negative errno on the rest."""
        with self._settled(device):
            if device.driver:
                return 1
            for driver in self.drivers.loaded():
                if self.matches(driver, device):
                    number = self._probe(driver, device, pause)
                    if number <= 0:  # above 0 its own probe refused: the next driver tries
                        return number or 1
        return 0

    def attach_driver(self, driver: Driver, pause: Pause = no_pause) -> None:
        """Let a driver try all devices without one (a new driver, a new id)."""
        for name in names(f"{self.disk.sys}/bus/pci/devices"):
            device = find_device(self.disk, name)
            if device and device.driver is None and self.matches(driver, device):
                with suppress(OSError), self._settled(device):  # it may have gone by now
                    self._probe(driver, device, pause)

    def matches(self, driver: Driver, device: Device) -> bool:
        """Tell whether the driver may be bound to the device now."""
        return driver.loaded and driver.matches(device.ids, device.override)

    def set_driver(self, device: Device, driver: Driver) -> None:
        """Bind without a probe, for a device that is plugged in with its driver."""
        with self._settled(device):
            if driver.name == pciback.NAME:
                pciback.add_slot(self.disk, device.name)
            self._link(driver, device)
            self._follow(device)
        note_event(self.disk, "bind", "pci", device.name)

    def detach(self, device: Device, pause: Pause = no_pause) -> None:
        """Take the device off its driver; the device's lock is held."""
        driver = self.drivers.get(device.driver)
        if driver is None:
            return
        busy = self._set_busy(device, driver)
        # The functions of a domain that the driver made go first, each off its own driver.
        inside = domains.functions(self.disk, device)
        for inner in inside:
            self.release_driver(inner)
        domains.remove_domain(self.disk, device, inside)
        self._unlink(driver, device)
        # First the class devices go, then the driver waits for its users.
        settle_class_devices(self.disk, device, present=False)
        pause()
        if vfio.is_given(driver, device):  # vfio_unregister_group_dev() waits for the last close
            vfio.wait_until_closed(self.disk, device)
        if device.is_there:
            if driver.vfio:
                vfio.set_power_control(self.disk, device, "on")
            self._follow(device)
            note_event(self.disk, "unbind", "pci", device.name)
        unlink(busy)

    def _probe(self, driver: Driver, device: Device, pause: Pause) -> int:
        """Bind; return 0, the errno of the driver's own probe, or that of an earlier refusal, negative."""
        if device.driver:
            return -errno.EBUSY
        busy = self._set_busy(device, driver)
        # `vfio.held` takes the same lock: no virtual machine gets the group between look and link.
        with self.disk.kernel_lock():
            group = device.group
            if group and not driver.managed_dma and vfio.is_dma_owned(self.disk, group):
                unlink(busy)
                return -errno.EBUSY
            self._link(driver, device)
        pause()
        if not device.is_there:  # pulled out while its probe ran
            unlink(busy)
            return -errno.ENODEV
        number = self._refusal(driver, device)
        if number:
            self._unlink(driver, device)
        elif driver.vfio:
            vfio.set_power_control(self.disk, device, "auto")
        self._follow(device)
        unlink(busy)
        if not number:
            for inner in domains.make_domain(self.disk, device) if driver.drives else ():
                self.attach(inner)
            note_event(self.disk, "bind", "pci", device.name)
        return number

    def _refusal(self, driver: Driver, device: Device) -> int:
        """The errno of the driver's own probe; 0 when it takes the device."""
        if driver.probe_errno:
            return driver.probe_errno
        if driver.name == pciback.NAME:
            return pciback.probe(self.disk, device)
        if driver.vfio:
            # vfio_pci_core_register_device(): no bridge, no PF with VFs.
            grouped = device.group is not None or vfio.allows_noiommu(self.disk)
            if device.header_type != 0 or not grouped:
                return errno.EINVAL
            if (read(f"{device.path}/sriov_numvfs") or "0\n") != "0\n":
                return errno.EBUSY
        return 0

    @contextmanager
    def _settled(self, device: Device) -> Generator[None, None, None]:
        """Hold the device's lock, after finishing what a killed process left half done."""
        with locked_device(device):
            busy = busy_link(self.disk, device)
            name = last_part(busy)
            if name is not None:  # the lock is free and the link is there: its process was killed
                driver = self.drivers.get(name)
                if driver and device.driver == name:
                    self._link(driver, device)
                elif driver:
                    self._unlink(driver, device)
                self._follow(device)
                unlink(busy)
            yield

    def _set_busy(self, device: Device, driver: Driver) -> str:
        busy = busy_link(self.disk, device)
        os.symlink(driver.name, busy)
        return busy

    def _folder(self, driver: Driver) -> str:
        return f"{self.disk.sys}/bus/pci/drivers/{driver.name}"

    def _link(self, driver: Driver, device: Device) -> None:
        link(self._folder(driver), f"{device.path}/driver")
        link(device.path, f"{self._folder(driver)}/{device.name}")

    def _unlink(self, driver: Driver, device: Device) -> None:
        unlink(f"{self._folder(driver)}/{device.name}")
        if device.driver == driver.name:
            unlink(f"{device.path}/driver")

    def _follow(self, device: Device) -> None:
        """Make or remove everything that depends on the binding: nodes, groups, class devices."""
        driver = self.drivers.get(device.driver)
        vfio.settle_device(self.disk, device, vfio.is_given(driver, device))
        vfio.settle_own_group(self.disk, device, driver is not None and driver.vfio)
        group = device.group
        if group:
            vfio.settle_group(self.disk, self.drivers, group)
        settle_class_devices(self.disk, device, driver is not None and driver.drives)


def _line(text: str) -> str:
    """Strip the newline that sysfs_streq() ignores at a name's end."""
    return text.removesuffix("\n")
