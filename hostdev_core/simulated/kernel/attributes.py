"""Writes to sysfs files: find the attribute of a path, and do what the kernel does with the value.

Device attributes follow the kernel's drivers/pci/pci-sysfs.c and drivers/base/power/sysfs.c.
"""

import errno
import os
import re
import stat
from collections.abc import Callable

from hostdev_core.simulated.kernel import pciback, sriov, usb
from hostdev_core.simulated.kernel.device import UNSET, Device, fail, find_device, locked_device
from hostdev_core.simulated.kernel.disk import Disk, read
from hostdev_core.simulated.kernel.driver_core import Core, Pause
from hostdev_core.simulated.kernel.drivers import ANY, Ids
from hostdev_core.simulated.kernel.pci import unplug

PAGE = 4096
_DRIVER_FILE = re.compile(r"bus/pci/drivers/([^/]+)/([^/]+)")
_USB_DRIVER_FILE = re.compile(r"bus/usb/drivers/([^/]+)/(bind|unbind)")
_DEVICE_FILE = re.compile(
    r"devices/(?:.*/)?([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/([^/]+|power/[^/]+)"
)
DriverWrite = Callable[[Core, str, str, Pause], None]
DeviceWrite = Callable[[Core, Device, str, Pause], None]


def real_path(disk: Disk, path: str) -> str:
    """Resolve a path below /sys; OSError with the errno of open(2) for a file that may not be written."""
    real = os.path.realpath(f"{disk.sys}/{path}", strict=True)
    mode = os.stat(real).st_mode
    if stat.S_ISDIR(mode):
        fail(errno.EISDIR)
    if not mode & 0o222:
        fail(errno.EACCES)
    return os.path.relpath(real, disk.sys)


def write_attribute(core: Core, path: str, text: str, pause: Pause) -> None:
    """Carry out a write as the kernel does; `path` is a real path below /sys.

    `pause` is called where the kernel, or a driver, may take its time: under the device's lock, if any.
    """
    if not text:
        return
    if match := _DRIVER_FILE.fullmatch(path):
        handler = _DRIVER_WRITES.get(match[2])
        if handler:
            handler(core, match[1], text, pause)
    elif match := _USB_DRIVER_FILE.fullmatch(path):
        change = usb.bind_interface if match[2] == "bind" else usb.unbind_interface
        change(core.disk, match[1], text.removesuffix("\n"))
    elif path == "bus/pci/drivers_probe":
        core.probe_device(text, pause)
    elif path == "bus/pci/drivers_autoprobe":
        core.disk.put(f"{core.disk.sys}/{path}", "0\n" if text.startswith("0") else "1\n")
    elif match := _DEVICE_FILE.fullmatch(path):
        _write_device(core, match[1], match[2], text, pause)


def _write_device(core: Core, name: str, attribute: str, text: str, pause: Pause) -> None:
    device = find_device(core.disk, name)
    if device is None:
        fail(errno.ENODEV)
    handler = _DEVICE_WRITES.get(attribute)
    if handler is None:  # an attribute without behaviour here keeps the value
        core.disk.put(f"{device.path}/{attribute}", text)
    else:
        handler(core, device, text, pause)


def _remove(core: Core, device: Device, text: str, pause: Pause) -> None:
    if _number(text):  # remove_store() takes any number but 0
        pause()
        unplug(core.disk, device)


def _override(core: Core, device: Device, text: str, pause: Pause) -> None:
    if len(text) >= PAGE - 1:
        fail(errno.EINVAL)
    line = text.partition("\0")[0].partition("\n")[0]  # driver_set_override() ends it at either
    with locked_device(device):
        pause()
        core.disk.put(f"{device.path}/driver_override", f"{line}\n" if line else UNSET)


def _power_control(core: Core, device: Device, text: str, pause: Pause) -> None:
    value = text.removesuffix("\n")
    with locked_device(device):
        pause()
        if value not in {"auto", "on"}:
            fail(errno.EINVAL)
        core.disk.put(f"{device.path}/power/control", f"{value}\n")


def _reset(core: Core, device: Device, text: str, pause: Pause) -> None:
    del core
    if _number(text) != 1:
        fail(errno.EINVAL)
    if not read(f"{device.path}/reset_method"):  # empty after a write to it: no method is left
        fail(errno.ENOTTY)
    with locked_device(device):
        pause()


def _reset_method(core: Core, device: Device, text: str, pause: Pause) -> None:
    """Change the reset methods without the device's lock, as the kernel does."""
    pause()
    words = text.split()
    known = str(core.disk.recall(f"devices/{device.name}").get("resets") or "").split()
    if words == ["default"]:
        words = known
    if any(word not in known for word in words):
        fail(errno.EINVAL)
    shown = " ".join(words)
    core.disk.put(f"{device.path}/reset_method", f"{shown}\n" if shown else "")


def _numvfs(core: Core, device: Device, text: str, pause: Pause) -> None:
    wanted = _number(text, 0xFFFF)  # kstrtou16()
    if wanted > int(read(f"{device.path}/sriov_totalvfs") or 0):
        fail(errno.ERANGE)
    with locked_device(device):
        pause()
        sriov.set_numvfs(core, device, wanted)


def _bind(core: Core, name: str, text: str, pause: Pause) -> None:
    core.bind(name, text, pause)


def _unbind(core: Core, name: str, text: str, pause: Pause) -> None:
    core.unbind(name, text, pause)


def _new_id(core: Core, name: str, text: str, pause: Pause) -> None:
    ids = _ids(text)
    with core.disk.kernel_lock():
        driver = core.drivers.get(name)
        if driver is None:
            fail(errno.ENODEV)
        if driver.matches(ids, None):  # new_id_store() adds no id that the driver has already
            fail(errno.EEXIST)
        driver = driver._replace(dynamic_ids=(*driver.dynamic_ids, ids))
        core.drivers.save([driver])
    core.attach_driver(driver, pause)


def _remove_id(core: Core, name: str, text: str, pause: Pause) -> None:
    del pause
    ids = _ids(text)
    with core.disk.kernel_lock():
        driver = core.drivers.get(name)
        if driver is None or ids not in driver.dynamic_ids:
            fail(errno.ENODEV)
        left = list(driver.dynamic_ids)
        left.remove(ids)
        core.drivers.save([driver._replace(dynamic_ids=tuple(left))])


def _new_slot(core: Core, name: str, text: str, pause: Pause) -> None:
    del name, pause
    pciback.new_slot(core.disk, text)


def _remove_slot(core: Core, name: str, text: str, pause: Pause) -> None:
    del name, pause
    pciback.remove_slot(core.disk, text)


def _ids(text: str) -> Ids:
    """Parse the words of `new_id`: vendor device [subvendor subdevice class class_mask driver_data]."""
    try:
        numbers = [int(word, 16) for word in text.split()]
    except ValueError:
        fail(errno.EINVAL)
    if len(numbers) < 2:
        fail(errno.EINVAL)
    return Ids(*(numbers + [ANY, ANY, 0, 0][len(numbers) - 2 :])[:6])


def _number(text: str, limit: int = 2**64 - 1) -> int:
    """Parse an unsigned number as kstrtoul() does with base 0."""
    word = text.removesuffix("\n").removeprefix("+")
    try:
        number = int(word, 8) if re.fullmatch("0[0-7]+", word) else int(word, 0)
    except ValueError:
        fail(errno.EINVAL)
    if number < 0 or not re.fullmatch("[0-9a-fA-FxX]+", word):
        fail(errno.EINVAL)
    if number > limit:
        fail(errno.ERANGE)
    return number


_DRIVER_WRITES: dict[str, DriverWrite] = {
    "bind": _bind,
    "unbind": _unbind,
    "new_id": _new_id,
    "remove_id": _remove_id,
    "new_slot": _new_slot,
    "remove_slot": _remove_slot,
}
_DEVICE_WRITES: dict[str, DeviceWrite] = {
    "remove": _remove,
    "driver_override": _override,
    "power/control": _power_control,
    "reset": _reset,
    "reset_method": _reset_method,
    "sriov_numvfs": _numvfs,
}
