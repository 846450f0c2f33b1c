"""The slots of pciback, in a dom0 of Xen."""

from hostdev_core.kernel.sysfs import Sysfs

from .fact import XEN_FACTS, fact
from .raw import bound, of_device, of_driver, read, send_home, write


@fact("ok", "ENODEV", "ok", "ok", True, "ok", True, "ok", False, "ENOENT", "ok", of=XEN_FACTS)
def a_slot_outlives_the_binding(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    def listed() -> bool:
        return device in (read(sysfs, of_driver("pciback", "slots")) or "").split()

    return [
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_driver("pciback", "bind"), device),
        write(sysfs, of_device(device, "driver_override"), "pciback"),
        write(sysfs, of_driver("pciback", "bind"), device),
        listed(),
        write(sysfs, of_driver("pciback", "unbind"), device),
        listed(),
        write(sysfs, of_driver("pciback", "remove_slot"), device),
        listed(),
        write(sysfs, of_driver("pciback", "remove_slot"), device),
        send_home(sysfs, device, driver),
    ]


@fact("ok", "ok", [1], True, "ok", "ok", "pciback", "ok", "pciback", "EINVAL", "ok", of=XEN_FACTS)
def a_slot_lets_pciback_seize(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    slots = of_driver("pciback", "slots")
    return [
        write(sysfs, of_driver("pciback", "new_slot"), f"{device}\n"),
        write(sysfs, of_driver("pciback", "new_slot"), device),
        [(read(sysfs, slots) or "").split().count(device)],
        bound(sysfs, device) == driver,
        write(sysfs, of_driver(driver, "unbind"), device),
        write(sysfs, of_driver("pciback", "bind"), device),
        bound(sysfs, device),
        write(sysfs, of_driver("pciback", "remove_slot"), device),
        bound(sysfs, device),
        write(sysfs, of_driver("pciback", "new_slot"), "nonsense"),
        send_home(sysfs, device, driver),
    ]
