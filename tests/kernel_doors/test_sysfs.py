"""A write that is meant for one device alone, in any file system."""

import errno
import os
from pathlib import Path

import pytest

from hostdev_core.errors import KernelError
from hostdev_core.kernel.sysfs import PCI_DEVICES, Sysfs
from tests.sample import NIC

pytestmark = pytest.mark.quick_cases

FOLDER = f"{PCI_DEVICES}/{NIC}"
OVERRIDE, BIND = f"{FOLDER}/driver_override", "bus/pci/drivers/e1000e/bind"


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """The device lies elsewhere, as in the kernel's."""
    for name in (f"devices/{NIC}/driver_override", BIND):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("")
    (tmp_path / PCI_DEVICES).mkdir(parents=True)
    (tmp_path / FOLDER).symlink_to(tmp_path / "devices" / NIC)
    return Sysfs(str(tmp_path))


@pytest.mark.parametrize("path", [OVERRIDE, BIND])
def test_the_device_that_is_meant(sysfs: Sysfs, path: str) -> None:
    inode = sysfs.inode(FOLDER)
    assert inode is not None
    sysfs.write(path, "vfio-pci", only=(FOLDER, inode))
    assert sysfs.read(path) == "vfio-pci"


@pytest.mark.parametrize("path", [OVERRIDE, BIND])
def test_another_device_or_none(sysfs: Sysfs, path: str) -> None:
    inode = sysfs.inode(FOLDER)
    assert inode is not None
    with pytest.raises(KernelError, match="another device is there by now") as raised:
        sysfs.write(path, "vfio-pci", only=(FOLDER, inode + 1))
    assert raised.value.errno == errno.ENODEV
    os.unlink(sysfs.path(FOLDER))
    with pytest.raises(KernelError):
        sysfs.write(path, "vfio-pci", only=(FOLDER, inode))
    assert sysfs.read(path) in {"", None}


def test_links_that_cannot_be_counted_are_not_none(sysfs: Sysfs) -> None:
    """As of a `net` directory: that nothing is hidden in it is not known then."""
    assert sysfs.links("nothing") == 0
    assert sysfs.links("bus") > 2
    os.symlink("round", sysfs.path("round"))
    with pytest.raises(KernelError):
        sysfs.links("round")
