"""The simulated host's own Sysfs, Texts and Modules."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

from hostdev_core.errors import KernelError, KernelTimeoutError
from hostdev_core.host import Host
from hostdev_core.kernel.directory import Directory
from hostdev_core.kernel.files import Texts
from hostdev_core.kernel.modules import Modules, not_loaded
from hostdev_core.kernel.sysfs import ANOTHER, Only, Sysfs
from hostdev_core.simulated.faults import Fault, Faults
from hostdev_core.simulated.kernel.attributes import real_path, write_attribute
from hostdev_core.simulated.kernel.device import fail
from hostdev_core.simulated.kernel.disk import Disk, check_regular
from hostdev_core.simulated.kernel.driver_core import Core, Pause
from hostdev_core.simulated.kernel.drivers import Ids
from hostdev_core.simulated.kernel.locks import locked
from hostdev_core.simulated.kernel.machine import load_module

# Attributes whose read takes the device's lock: drivers/base/core.c, drivers/pci/pci-sysfs.c,
# drivers/pci/iov.c, drivers/usb/core/sysfs.c; each with a file that only such a device has.
LOCKED = {
    **dict.fromkeys(("uevent", "driver_override", "sriov_numvfs"), "modalias"),
    **dict.fromkeys(
        ("serial", "manufacturer", "product", "configuration", "bConfigurationValue",
         "bNumInterfaces", "bmAttributes", "bMaxPower"), "devnum"),
}  # fmt: skip

# KMALLOC_MAX_SIZE of x86: a read of a sysctl stays below it (proc_sys_call_handler).
LARGEST_ALLOCATION = 4 << 20


class SimulatedSysfs(Sysfs):
    """The sysfs of a simulated host: writes have the kernel's effects.

    `may_write` is False for a user who is not root: root alone may write the attributes hostdev writes.
    """

    may_write = True

    def __init__(self, core: Core, faults: Faults) -> None:
        super().__init__(core.disk.sys)
        self._core = core
        self._faults = faults

    @contextmanager
    def directory(self, path: str) -> Generator[Directory | None, None, None]:
        """Open a directory for many reads; None when it is not there."""
        with super().directory(path) as directory:
            yield directory and _SimulatedDirectory(directory, self, path)

    def read_bytes(self, path: str, size: int) -> bytes | None:
        """Read at most `size` bytes of a file; a few wait for the device's lock, as in the kernel."""
        if not self._may_read(path):
            raise KernelError(
                f"cannot read {self.path(path)}: {os.strerror(errno.EACCES)}",
                path=self.path(path),
                value="",
                errno=errno.EACCES,
            )
        folder, _, name = path.rpartition("/")
        if name not in LOCKED or not os.path.lexists(self.path(f"{folder}/{LOCKED[name]}")):
            return super().read_bytes(path, size)
        self._faults.wait_for_lock(folder)
        try:
            with locked(self.path(folder), create=False):
                data = super().read_bytes(path, size)
        except FileNotFoundError:
            return None
        if name == "uevent" and data is not None:  # dev_uevent() adds the driver at each read
            driver = self.link(f"{folder}/driver")
            data = (f"DRIVER={driver}\n".encode() if driver else b"") + data
        return data

    def _may_read(self, path: str) -> bool:
        """Tell whether the mode has a read bit: as root the tests could read every file."""
        try:
            return bool(os.stat(self.path(path)).st_mode & 0o444)
        except OSError:
            return True

    def _write(self, path: str, data: bytes, only: Only | None) -> None:
        value = data.decode("utf-8", "replace")
        if only is not None and (found := self.inode(only[0])) != only[1]:
            if found is None:
                fail(errno.ENOENT)
            raise OSError(errno.ENODEV, ANOTHER)
        self._faults.log(path, value)  # before it is refused: `writes` lists every try
        if not self.may_write:
            fail(errno.EACCES)
        real = real_path(self._core.disk, path)
        self._faults.wait_for_lock(path, value)
        fault = self._faults.take({path, real}, value)  # a test may name a link or its target
        pause = once(self._faults, fault, path, value)
        if fault and (fault.errno is not None or not fault.effect):
            pause()
            if fault.errno is not None:
                fail(fault.errno)
            return
        write_attribute(self._core, real, value, pause)
        pause()


class _SimulatedDirectory(Directory):
    """An open directory; attributes under the device's lock are read through SimulatedSysfs."""

    __slots__ = ("_place", "_sysfs")

    def __init__(self, real: Directory, sysfs: SimulatedSysfs, path: str) -> None:
        # The same descriptor, closed by its owner.
        super().__init__(real._fd, sysfs.path(path), sysfs.reader)
        self._sysfs = sysfs
        self._place = path

    def read(self, name: str) -> str | None:
        """Read an attribute's text; a few wait for the device's lock, as in the kernel."""
        if name.rpartition("/")[2] not in LOCKED:
            return super().read(name)
        return self._sysfs.read(f"{self._place}/{name}")


class SimulatedTexts(Texts):
    """The text files of a simulated host, all of them regular ones; its sysctls refuse large reads."""

    def __init__(self, disk: Disk) -> None:
        self._sysctls = f"{disk.root}/proc/sys/"

    def fetch(self, path: str, size: int) -> bytes:
        """Read at most `size` bytes of a file; InputError for one that is not regular."""
        check_regular(path)
        return super().fetch(path, size)

    def _read(self, fd: int, path: str, size: int) -> bytes:
        if path.startswith(self._sysctls) and size >= LARGEST_ALLOCATION:
            fail(errno.ENOMEM)
        return super()._read(fd, path, size)


class SimulatedModules(Modules):
    """The modules of a simulated host; loading one brings its drivers, unless `may_load` is False."""

    may_load = True

    def __init__(self, host: Host, core: Core, faults: Faults) -> None:
        super().__init__(host)
        self._simulated = host
        self._core = core
        self._faults = faults

    def _load(self, module: str, lock: int | None) -> None:
        """Load a module as modprobe(8) does; for faults and the log it is a write to "modprobe"."""
        del lock
        self._faults.log("modprobe", module)
        fault = self._faults.take({"modprobe"}, module)
        limit = self._simulated.deadlines.load
        if not self.may_load:
            fail(errno.EPERM)
        if fault and not self._faults.wait(fault, "modprobe", module, limit):
            raise KernelTimeoutError(
                f"modprobe {module} has not returned", path="modprobe", value=module
            )
        if fault and fault.errno is not None:
            fail(fault.errno)
        self._check_loadable(module.replace("-", "_"))
        if fault is None or fault.effect:
            for name in self.brought_along(module) or ():
                load_module(self._core, name, self.options(name))
            load_module(self._core, module.replace("-", "_"), self.options(module))

    def _check_loadable(self, module: str) -> None:
        """Raise KernelError for a module that modprobe does not find, or that modprobe.d disables."""
        found, message = self.find(module)
        if not found:
            raise not_loaded(module, f"modprobe: {message}")
        if reason := self.configuration.disabled(module):
            raise not_loaded(module, f"modprobe: ERROR: {reason}", errno.EPERM)

    def _ask(self, question: str, name: str) -> tuple[bool, str]:
        """Answer as modprobe(8) does: whether it finds a module below /lib/modules, and its message.

        Where there is no such folder, the distribution keeps them elsewhere, and modprobe knows where.
        """
        folder = f"lib/modules/{self._host.kernel_release}"
        lost = f"FATAL: Module {name} not found in directory /{folder}"
        if os.path.isdir(self._host.path("lib/modules")) and self._host.read_text(
            f"{folder}/modules.dep"
        ) is None:  # fmt: skip
            return False, lost
        names = _modules_of(self._core, question, name)
        return (True, "\n".join(names)) if names else (False, lost)


def _modules_of(core: Core, question: str, name: str) -> list[str]:
    """Find the modules that modprobe finds by name, or by an alias of a device."""
    drivers = core.drivers.all().values()
    if question == "--show-depends":
        known = [d.module for d in drivers if d.module]
        return [module for module in known if module == name.replace("-", "_")][:1]
    kind, _, alias = name.partition(":")
    ids, vfio = Ids.of_modalias(f"pci:{alias}"), kind == "vfio_pci"
    found = [d for d in drivers if d.override_only == vfio]
    return [d.module for d in found if d.module and any(Ids.parse(t).accepts(ids) for t in d.ids)]


def once(faults: Faults, fault: Fault | None, path: str, value: str) -> Pause:
    """Make a pause that waits at its first call only: a write may pass several places that pause."""
    left = [fault] if fault else []

    def pause() -> None:
        if left:
            faults.wait(left.pop(), path, value)

    return pause
