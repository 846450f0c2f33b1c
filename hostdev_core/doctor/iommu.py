"""Whether the IOMMU is on, and why not; interrupt remapping; the processor.

Where each is read: the firmware's tables, Documentation/ABI/testing/sysfs-firmware-acpi and
Documentation/arch/x86/iommu.rst; /sys/class/iommu, Documentation/ABI/testing/sysfs-class-iommu; groups,
Documentation/ABI/testing/sysfs-kernel-iommu_groups; the arguments,
Documentation/admin-guide/kernel-parameters.txt (iommu, intel_iommu, amd_iommu, intremap).
"""

import re
from collections.abc import Iterator

from hostdev_core.bus.pci import list_pci
from hostdev_core.doctor.files import CMDLINE, groups, kernel_words, said, switched_on, told
from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.errors import KernelError
from hostdev_core.host import Host
from hostdev_core.kernel.sysfs import IOMMU_GROUPS

ON = Code("iommu-on", Level.OK, "The IOMMU is on")
OFF = Code(
    "iommu-off",
    Level.PROBLEM,
    "The IOMMU is off: the kernel does not use it",
    "take what turns it off out of the kernel's arguments, or add `intel_iommu=on` where the kernel leaves"
    " VT-d off; then reboot",
)
ABSENT = Code(
    "iommu-absent",
    Level.PROBLEM,
    "There is no IOMMU: the firmware shows none",
    "turn on VT-d (Intel), AMD-Vi or IOMMU (AMD), SMMU (Arm) in the firmware's settings",
)
PARTIAL = Code(
    "iommu-partial",
    Level.NOTE,
    "Some PCI devices are in no IOMMU group, and cannot be lent through VFIO",
    "see which IOMMU they should be behind; `intel_iommu=igfx_off` leaves the GPU of an Intel processor out",
)
XEN = Code("iommu-of-xen", Level.OK, "This is Xen's dom0: Xen has the IOMMU, and shows no groups")
XEN_UNSEEN = Code(
    "iommu-of-xen-unseen",
    Level.NOTE,
    "This is Xen's dom0, and no table of the firmware tells of an IOMMU",
    "`xl info | grep virt_caps` names hvm_directio where Xen has one; else turn it on in the firmware",
)
REMAPPED = Code("interrupt-remapping", Level.OK, "Interrupts are remapped")
NOT_REMAPPED = Code(
    "interrupt-remapping-off",
    Level.PROBLEM,
    "Interrupts are not remapped: VFIO refuses to lend",
    "take `intremap=off` out of the kernel's arguments, or see the firmware's settings (x2APIC, VT-d); where"
    " every guest is trusted: `echo options vfio_iommu_type1 allow_unsafe_interrupts=1"
    " >/etc/modprobe.d/vfio-unsafe.conf`",
)
UNSAFE = Code(
    "unsafe-interrupts",
    Level.NOTE,
    "VFIO lends without interrupt remapping: a guest can raise any interrupt of the host",
    "lend to trusted guests only, or take the option `allow_unsafe_interrupts` away",
)
UNKNOWN = Code(
    "interrupt-remapping-unknown",
    Level.NOTE,
    "Whether interrupts are remapped cannot be seen",
    "`dmesg | grep -i remap`; `hostdev prepare` tries VFIO before it lends",
)
CPU = Code("cpu-virtualization", Level.OK, "The processor runs virtual machines")
NO_CPU = Code(
    "cpu-virtualization-off",
    Level.NOTE,
    "The processor shows neither VT-x nor AMD-V: QEMU runs without KVM",
    "turn on VT-x (Intel) or SVM (AMD) in the firmware's settings",
)

_TABLES = "firmware/acpi/tables"
# The signatures of ACPI tables that describe an IOMMU. Xen turns DMAR around, so that dom0 leaves it alone
# (acpi_dmar_zap in xen/drivers/passthrough/vtd/dmar.c).
_IOMMUS = {
    "DMAR": "Intel VT-d",
    "IVRS": "AMD-Vi",
    "IORT": "Arm SMMU",
    "VIOT": "virtio-iommu",
    "RMAD": "Intel VT-d, which Xen has",
}
_OFF = re.compile(r"(?:intel_iommu|amd_iommu|iommu)=(?:\S*,)?off(?:,\S*)?")
_ABOUT = re.compile(r"(?:intel_|amd_)?iommu[.=]|iommu\.|arm-smmu|(?:no)?intremap|virtio_iommu")
_INTREMAP_OFF = re.compile(r"nointremap|intremap=(?:\S*,)?off(?:,\S*)?")
# The chips of remapped interrupts are called IR-IO-APIC, IR-PCI-MSI, ... on x86; an ITS isolates on Arm.
_REMAPPED = re.compile(r"\b(?:IR-[A-Z]|ITS-)")
_X86_CHIP = re.compile(r"\b(?:IO-APIC|PCI-MSI)")
_UNSAFE = "allow_unsafe_interrupts"
_REBOOT = "(GRUB_CMDLINE_LINUX in /etc/default/grub, then `update-grub`), and reboot"


def check_iommu(host: Host) -> Iterator[Finding]:
    """The IOMMU: on, off, or absent, and why."""
    tables = _tables(host)
    shown = [told(host, _TABLES, f"{name} ({_IOMMUS[name]})") for name in tables]
    if host.is_dom0:
        code, nothing = (XEN, ()) if tables else (XEN_UNSEEN, (*_absence(host),))
        yield code.found(said(host, "proc/xen/capabilities", "control_d"), *shown, *nothing)
        return
    units, found = host.sysfs.names("class/iommu"), groups(host)
    evidence = [*shown, *([told(host, "class/iommu", ", ".join(units))] if units else [])]
    words = [word for word in kernel_words(host) if _ABOUT.match(word)]
    evidence += [said(host, CMDLINE, word) for word in words]
    if found:
        kind = host.sysfs.read(f"{IOMMU_GROUPS}/{found[0]}/type")
        ways = f" of type {kind}" if kind else ""
        yield ON.found(told(host, IOMMU_GROUPS, f"{len(found)} groups{ways}"), *evidence)
        yield from _without_group(host)
    elif tables or units or any(map(_OFF.fullmatch, words)):
        empty = told(host, IOMMU_GROUPS, "no groups")
        yield OFF.found(empty, *evidence, remedy=_turn_on(tables, words))
    else:
        yield ABSENT.found(*_absence(host), remedy=_find_one(host))


def _tables(host: Host) -> list[str]:
    return [name for name in host.sysfs.names(_TABLES) if name in _IOMMUS]


def _without_group(host: Host) -> Iterator[Finding]:
    devices = [device for device in list_pci(host.sysfs, tolerant=True) if not device.unread]
    alone = [device for device in devices if device.iommu_group is None and not device.is_bridge]
    if alone:
        yield PARTIAL.found(
            *(f"{device.name} ({device.ids}) has no iommu_group" for device in alone)
        )


def _turn_on(tables: list[str], words: list[str]) -> str:
    """What turns an IOMMU on that is there."""
    if off := [word for word in words if _OFF.fullmatch(word)]:
        return f"take `{off[-1]}` out of the kernel's arguments {_REBOOT}"
    if "DMAR" in tables and "intel_iommu=on" not in words:
        return f"add `intel_iommu=on` to the kernel's arguments {_REBOOT}"
    if "VIOT" in tables:
        return "its driver is not there: `modprobe virtio_iommu`, in the initramfs at best"
    return "the kernel's log says why it is not used: `dmesg | grep -iE 'dmar|amd-vi|smmu|iommu'`"


def _absence(host: Host) -> Iterator[str]:
    present = ", ".join(name for name in host.sysfs.names(_TABLES) if name.isupper())
    wanted = "no DMAR, IVRS, IORT or VIOT"
    yield told(host, _TABLES, f"{present}; {wanted}" if present else f"nothing is shown, {wanted}")
    if vendor := _processor(host)[0]:
        yield said(host, "proc/cpuinfo", vendor)


def _find_one(host: Host) -> str:
    vendor, flags = _processor(host)
    if "hypervisor" in flags:
        return (
            "this is a virtual machine without an IOMMU of its own: give it one, with QEMU"
            " `-device intel-iommu,intremap=on,caching-mode=on`"
        )
    settings = {"GenuineIntel": "VT-d", "AuthenticAMD": "AMD-Vi (IOMMU)"}
    if vendor in settings:
        return f"turn on {settings[vendor]} in the firmware's settings"
    return ABSENT.remedy


def _processor(host: Host) -> tuple[str, set[str]]:
    """The vendor and the flags of the first processor, on x86 (proc_cpuinfo(5)); nothing elsewhere."""
    rows = [line.partition(":") for line in (host.read_text("proc/cpuinfo") or "").splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in reversed(rows)}
    return facts.get("vendor_id", ""), {*facts.get("flags", "").split()}


def check_interrupts(host: Host) -> Iterator[Finding]:
    """Interrupt remapping, which VFIO wants (vfio_iommu_type1_attach_group, iommufd_device_attach)."""
    if host.is_dom0 or not groups(host):
        return
    text, allowed = host.read_text("proc/interrupts") or "", _unsafe(host)
    if found := _REMAPPED.search(text):
        line = text[text.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
        yield REMAPPED.found(said(host, "proc/interrupts", " ".join(line.split())))
    if allowed:
        yield UNSAFE.found(*allowed)
    elif not found and _X86_CHIP.search(text):
        yield NOT_REMAPPED.found(*_why_not_remapped(host))
    elif not found:
        yield UNKNOWN.found(said(host, "proc/interrupts", "no name of a remapping chip"))


def _unsafe(host: Host) -> list[str]:
    """Where VFIO is told to do without: a parameter of the module that sets the IOMMU up."""
    modules = ("vfio_iommu_type1", "iommufd")
    return [row for module in modules for row in switched_on(host, module, _UNSAFE)]


def _why_not_remapped(host: Host) -> Iterator[str]:
    yield said(host, "proc/interrupts", "no IR-IO-APIC, no IR-PCI-MSI")
    for word in filter(_INTREMAP_OFF.fullmatch, kernel_words(host)):
        yield said(host, CMDLINE, word)
    try:
        table = host.sysfs.read_bytes(f"{_TABLES}/DMAR", 48) or b""
    except KernelError:
        yield told(host, f"{_TABLES}/DMAR", "read by root alone")
        return
    # Flags, bit 0 INTR_REMAP: VT-d specification, 8.1 DMA Remapping Reporting Structure.
    if len(table) > 37 and not table[37] & 1:
        yield told(host, f"{_TABLES}/DMAR", "the firmware has interrupt remapping turned off")


def check_processor(host: Host) -> Iterator[Finding]:
    """VT-x or AMD-V, on x86; Xen hides them from dom0."""
    vendor, flags = _processor(host)
    if host.is_dom0 or not vendor:
        return
    own = flags & {"vmx", "svm"}
    if own:
        yield CPU.found(said(host, "proc/cpuinfo", f"{vendor}, {', '.join(sorted(own))}"))
    else:
        yield NO_CPU.found(said(host, "proc/cpuinfo", f"{vendor}, neither vmx nor svm in flags"))


TOPIC = Topic(
    "IOMMU, interrupts, processor",
    (
        ON,
        OFF,
        ABSENT,
        PARTIAL,
        XEN,
        XEN_UNSEEN,
        REMAPPED,
        NOT_REMAPPED,
        UNSAFE,
        UNKNOWN,
        CPU,
        NO_CPU,
    ),
    (check_iommu, check_interrupts, check_processor),
)
