"""What the board and the boot loader give a simulated machine: firmware tables, processor, kernel arguments.

As an Intel machine shows them; a test writes other files in their place.
"""

import os

from hostdev_core.simulated.kernel.disk import Disk, link, make

_CMDLINE = "BOOT_IMAGE=/boot/vmlinuz-{release} root=/dev/sda1 ro quiet{iommu}\n"
_CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme msr apic ht nx lm{own}\n"
_INTERRUPTS = """\
           CPU0
  4:         11  {remapped}IO-APIC    4-edge      ttyS0
 24:          0  {remapped}PCI-MSI 81920-edge      PCIe PME
"""
_XEN_INTERRUPTS = """\
           CPU0
  8:          1  xen-pirq    -ioapic-edge  rtc0
 29:         89   xen-dyn    -event     xenbus
"""
# Header, host address width, flags with INTR_REMAP: VT-d specification, 8.1.
_DMAR = b"DMAR\x30\0\0\0\x01" + bytes(27) + b"\x26\x01" + bytes(10)


def make_board(root: str, release: str, *, dom0: bool, iommu: bool) -> None:
    """Make the files of a machine that has none of them; `iommu`: the kernel uses one.

    A machine that is replayed has none: a capture does not tell of them. Xen has the IOMMU of its dom0: it
    turns the name of the table around there, and hides vmx.
    """
    disk = Disk(root)
    words = {"release": release, "iommu": " intel_iommu=on" if iommu else ""}
    make(f"{disk.root}/proc/cmdline", _CMDLINE.format(**words))
    make(f"{disk.root}/proc/cpuinfo", _CPUINFO.format(own="" if dom0 else " vmx"))
    chips = _INTERRUPTS.format(remapped="IR-" if iommu else "")
    make(f"{disk.root}/proc/interrupts", _XEN_INTERRUPTS if dom0 else chips)
    tables = {"APIC": b"APIC", "DSDT": b"DSDT", "FACP": b"FACP"}
    if iommu or dom0:
        tables["RMAD" if dom0 else "DMAR"] = _DMAR
    folder = f"{disk.sys}/firmware/acpi/tables"
    os.makedirs(folder)
    for name, data in tables.items():
        make(f"{folder}/{name}", data, 0o400)
    os.makedirs(f"{disk.sys}/class/iommu")
    if iommu:
        unit = f"{disk.sys}/devices/virtual/iommu/dmar0"
        os.makedirs(unit)
        link(unit, f"{disk.sys}/class/iommu/dmar0")
