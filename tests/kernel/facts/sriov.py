"""Virtual functions: how many a PF makes, and that they outlive its driver."""

from hostdev_core.kernel.sysfs import Sysfs

from .fact import SRIOV_FACTS, fact
from .raw import of_device, of_driver, read, send_home, write


@fact("ERANGE", "EINVAL", "EINVAL", "ok", "2", 2, "ok", "EBUSY", "ok", "0", 0, of=SRIOV_FACTS)
def numvfs_makes_and_removes(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    del driver
    path = of_device(device, "sriov_numvfs")
    seen: list[object] = [write(sysfs, path, value) for value in ("9999", "x", "-1", "2\n")]
    seen += [read(sysfs, path), len(_virtual(sysfs, device))]
    seen += [write(sysfs, path, value) for value in ("2", "1", "0")]
    return [*seen, read(sysfs, path), len(_virtual(sysfs, device))]


@fact("ok", True, True, "ok", "2", "ENOENT", "ENOENT", "ok", "EBUSY", "ok", "ok", of=SRIOV_FACTS)
def a_pf_without_its_driver_keeps_its_vfs(sysfs: Sysfs, device: str, driver: str) -> list[object]:
    path = of_device(device, "sriov_numvfs")
    seen: list[object] = [write(sysfs, path, "2")]
    groups = {sysfs.link(of_device(name, "iommu_group")) for name in _virtual(sysfs, device)}
    owners = {sysfs.link(of_device(name, "physfn")) for name in _virtual(sysfs, device)}
    return [
        *seen,
        len(groups) == 2,
        owners == {device},
        write(sysfs, of_driver(driver, "unbind"), device),
        read(sysfs, path),
        write(sysfs, path, "1"),
        write(sysfs, path, "0"),
        write(sysfs, of_device(device, "driver_override"), "vfio-pci"),
        write(sysfs, of_driver("vfio-pci", "bind"), device),
        send_home(sysfs, device, driver),
        write(sysfs, path, "0"),
    ]


def _virtual(sysfs: Sysfs, device: str) -> list[str]:
    names = sysfs.names(f"bus/pci/devices/{device}")
    links = (sysfs.link(of_device(device, name)) for name in names if name.startswith("virtfn"))
    return [link for link in links if link]
