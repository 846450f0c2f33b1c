"""QEMU command lines: the machine and its spare devices.

Their PCI addresses follow from the order of the root ports.
"""

from __future__ import annotations

from pathlib import Path

NIC, NIC2, NVME, XHCI = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0"
"""Of the bare machine: two e1000e, an NVMe with SR-IOV (four VFs), an xHCI with USB devices."""
FREE_PORT, FREE_ADDRESS = "port5", "0000:05:00.0"
"""An empty root port, and the address of what `device_add e1000e,id=hot,bus=port5` puts there."""
MANY_NICS = tuple(f"0000:{bus:02x}:00.0" for bus in range(6, 14))
"""Of the bare machine: eight further e1000e, each in its own IOMMU group, for timing."""
CHIPSET = ("0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3")
"""ISA bridge, SATA and SMBus: three functions of one IOMMU group, each with a driver."""
XEN_NIC, XEN_NVME, XEN_XHCI = NIC, "0000:02:00.0", "0000:03:00.0"
"""Of the Xen machine, which also has the empty port."""
TWINS, IGB, IGB_VFS = (
    ("0000:01:00.0", "0000:01:00.1"),
    "0000:02:00.0",
    ("0000:02:10.0", "0000:02:10.2"),
)
"""Of the machine of `functions`."""
DOMU_MEMORY = 500
"""MB that dom0 leaves to Xen itself and to its domains."""


def qemu_command(
    files: Path,
    folder: Path,
    *,
    root: Path | None,
    xen: bool,
    memory: int,
    cpus: int,
    iommu: str | None = None,
) -> list[str]:
    """A q35 machine with an emulated VT-d and three 9p shares that boots the kernel, with Xen or without.

    FILES is the lab, FOLDER the session, ROOT what is to be / there in the place of the machine's own;
    MEMORY in MB. IOMMU is another device in the place of the VT-d, "" for none. The caller connects
    the chardev "control".
    """
    # caching-mode is what makes a nested QEMU's mappings work; Xen has no use for it.
    if iommu is None:
        iommu = "intel-iommu,intremap=on" + ("" if xen else ",caching-mode=on")
    return [
        *_hardware(cpus, memory, folder / "console", iommu),
        *_shares(files, folder, root),
        *("-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=control,name=control"),
        *(_xen_with_dom0(files, cpus, memory) if xen else _bare_kernel(files)),
    ]


def _hardware(cpus: int, memory: int, console: Path, iommu: str) -> list[str]:
    """A q35 without any device but a serial port, which writes to a file, and an IOMMU, if there is one."""
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "q35"]
    words += ["-cpu", "qemu64", "-smp", str(cpus), "-m", str(memory)]
    words += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    return [*words, "-device", iommu] if iommu else words


def _shares(files: Path, folder: Path, root: Path | None) -> list[str]:
    """The 9p shares: the machine's own /, the lab, the session and, where it is another's, the guest's /."""
    shares = [
        ("host", "/", ",readonly=on"),
        ("lab", str(files), ",readonly=on"),
        ("session", str(folder), ""),
    ]
    if root is not None:
        shares.append(("root", str(root), ",readonly=on"))
    words: list[str] = []
    for tag, path, mode in shares:
        words += ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{mode}"]
        words += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return words


def _kernel_arguments(console: str) -> str:
    # no_timer_check: on a busy machine the timer of an emulated one is late, and it panics.
    return f"console={console} panic=5 quiet intel_iommu=on no_timer_check"


def _bare_kernel(files: Path) -> list[str]:
    """Boot the kernel itself."""
    kernel, initrd = str(files / "vmlinuz"), str(files / "initramfs.cpio")
    return ["-kernel", kernel, "-initrd", initrd, "-append", _kernel_arguments("ttyS0")]


def _xen_with_dom0(files: Path, cpus: int, memory: int) -> list[str]:
    """Boot Xen, and the kernel as its dom0."""
    # What -initrd lists become Xen's multiboot modules: dom0's kernel with its arguments, its initramfs.
    dom0_memory = memory - DOMU_MEMORY
    dom0 = f"dom0=pv dom0_mem={dom0_memory}M,max:{dom0_memory}M dom0_max_vcpus={cpus}"
    modules = f"{files / 'vmlinux'} {_kernel_arguments('hvc0')},{files / 'initramfs.cpio'}"
    words = ["-kernel", str(files / "xen"), "-initrd", modules]
    return [*words, "-append", f"xen console=com1 com1=115200,8n1 {dom0}"]


def bare(folder: Path) -> list[str]:
    """The devices of the bare machine; its disk images go to FOLDER."""
    words = [*_port(1), *_nic(1), *_port(2), *_nic(2), *_port(3)]
    sriov = "sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=10,msix_qsize=9"
    words += ["-device", "nvme-subsys,id=subsys"]
    words += ["-device", f"nvme,id=nvme,bus=port3,subsys=subsys,serial=lab,{sriov}"]
    words += [*_drive(folder, "disk"), "-device", "nvme-ns,drive=disk,bus=nvme,shared=off"]
    words += [*_port(4), *_usb(folder, "port4"), *_port(5)]
    for number in range(6, 14):
        words += [*_port(number), *_nic(number)]
    return words


def functions(*, igb: bool) -> list[str]:
    """The devices of a machine with a card of two functions, TWINS, and one that has virtual functions, IGB.

    QEMU has an igb since 8.0.
    """
    words = [*_port(1), *_nic(1, "addr=0.0,multifunction=on"), *_nic(1, "addr=0.1"), *_port(2)]
    return [*words, "-device", "igb,bus=port2,romfile="] if igb else words


def small(nics: int = 2) -> list[str]:
    """The devices of a bare machine for one question: so many e1000e."""
    return [word for number in range(1, nics + 1) for word in (*_port(number), *_nic(number))]


def xen(folder: Path) -> list[str]:
    """The devices of the Xen machine; its disk images go to FOLDER."""
    words = [*_port(1), *_nic(1), *_port(2), *_drive(folder, "disk")]
    words += ["-device", "nvme,bus=port2,drive=disk,serial=lab"]
    return [*words, *_port(3), *_usb(folder, "port3"), *_port(4), *_port(5)]


def _port(number: int) -> list[str]:
    return ["-device", f"pcie-root-port,id=port{number},chassis={number},slot={number}"]


def _nic(port: int, where: str = "") -> list[str]:
    # Without its option ROM, which the firmware would run for each.
    return ["-device", ",".join(filter(None, (f"e1000e,bus=port{port},romfile=", where)))]


def _usb(folder: Path, bus: str) -> list[str]:
    """A controller with a disk and two mice that differ in nothing but their port."""
    words = ["-device", f"qemu-xhci,bus={bus},id=usb", *_drive(folder, "stick")]
    words += ["-device", "usb-storage,bus=usb.0,drive=stick"]
    return words + ["-device", "usb-mouse,bus=usb.0"] * 2


def _drive(folder: Path, name: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{name}.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    return ["-drive", f"file={image},if=none,id={name},format=raw"]
