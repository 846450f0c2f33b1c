"""hold_vfio.py ADDRESS [alone]: opens the device as a hypervisor does, until killed; for the guest.

`alone`: nothing but the device's own descriptor stays open, as in a process that was handed it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
from pathlib import Path

# linux/vfio.h: _IO(';', 100 + n)
SET_IOMMU, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD = 0x3B66, 0x3B68, 0x3B6A
TYPE1_IOMMU = 1


def main(address: str, *, alone: bool) -> None:
    group_number = Path(f"/sys/bus/pci/devices/{address}/iommu_group").readlink().name
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    group = os.open(f"/dev/vfio/{group_number}", os.O_RDWR)
    fcntl.ioctl(group, GROUP_SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1_IOMMU)
    # A buffer that may be written makes ioctl return the number, here the device's descriptor.
    fcntl.ioctl(group, GROUP_GET_DEVICE_FD, bytearray(address.encode() + b"\0"))
    if alone:
        os.close(group)
        os.close(container)
    print("held", os.getpid(), flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], alone="alone" in sys.argv)
