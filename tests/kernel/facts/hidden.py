"""A sysfs that an empty directory of another file system hides."""

from hostdev_core.kernel.sysfs import Sysfs

from .fact import HIDDEN_FACTS, fact
from .raw import bound, of_device, of_driver, read, seen, write


@fact(None, None, None, None, False, [], 0, "ENOENT", "ENOENT", of=HIDDEN_FACTS)
def what_is_hidden_looks_as_if_it_were_gone(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    return [
        read(sysfs, of_device(device, "driver_override")),
        bound(sysfs, device),
        sysfs.inode(of_device(device, "")),
        sysfs.real_path(of_device(device, "iommu_group")),
        sysfs.exists(of_device(device, "driver")),
        sysfs.names("bus/pci/devices"),
        sysfs.links("bus/pci/devices"),
        write(sysfs, of_device(device, "driver/unbind"), device),
        write(sysfs, of_driver(driver, "bind"), device),
    ]


@fact("ENOENT", "ENOENT", "ENOENT", of=HIDDEN_FACTS)
def stat_tells_that_it_is_hidden(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    del driver
    return [seen(sysfs, path) for path in ("bus", "bus/pci/devices", of_device(device, ""))]
