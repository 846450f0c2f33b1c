"""Whether a USB device that is there is the one that a record is about.

It is known by its directory in sysfs, which another one never gets; a record of an older hostdev, or a
device that was plugged in again, by its serial, which is read only then, and within a time.
"""

from hostdev_core.bus.usb import PATIENCE, USBTexts, check_answered
from hostdev_core.model.device import USBDevice
from hostdev_core.model.record import Record


def is_like(texts: USBTexts, record: Record, device: USBDevice, seconds: float) -> bool | None:
    """Whether a device has the ids and the serial of a record's, whatever its number.

    None when it does not answer within so many seconds: it may be.
    """
    if record.inode is not None and record.inode == device.inode:
        return True
    ids, _, serial = record.usb.partition(" ")[2].partition(" ")
    if ids != device.ids:
        return False
    (asked,) = texts.fill([device], seconds)
    return None if asked.unread else (asked.serial or "").rstrip() == serial


def has_number(record: Record, device: USBDevice) -> bool:
    """Whether a device has the number that a record's had; it gets another one at a replug."""
    return record.usb.partition(" ")[0] == device.number


def is_same_usb(texts: USBTexts, record: Record, device: USBDevice, seconds: float) -> bool:
    """Whether a device is the record's, under the same number.

    Raises KernelTimeoutError when that hangs on a device that does not answer.
    """
    if not has_number(record, device):
        return False
    like = is_like(texts, record, device, seconds)
    if like is None:
        check_answered(texts.sysfs, device._replace(unread="it does not answer in time"))
    return bool(like)


def is_replugged(texts: USBTexts, record: Record, device: USBDevice | None) -> bool:
    """Whether a USB device came back to its port under another number, as far as can be seen."""
    if device is None or has_number(record, device):
        return False
    return is_like(texts, record, device, PATIENCE) is not False
