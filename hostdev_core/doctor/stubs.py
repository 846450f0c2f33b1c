"""The stub driver that this host needs: vfio-pci, or pciback in Xen's dom0.

How modprobe is told what to do: modprobe.d(5); options of what is built in count on the kernel's command
line alone (Documentation/admin-guide/kernel-parameters.rst); `ids=`, vfio_pci_fill_ids() in
drivers/vfio/pci/vfio_pci.c; `hide=`, drivers/xen/xen-pciback/pci_stub.c.
"""

from collections.abc import Iterable, Iterator

from hostdev_core.doctor.files import CMDLINE
from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.host import Host
from hostdev_core.kernel.modprobe import Configuration, Line
from hostdev_core.kernel.sysfs import PCI_DRIVERS

READY = Code("stub-ready", Level.OK, "The stub driver is there, or is loaded when it is needed")
MISSING = Code(
    "stub-missing",
    Level.PROBLEM,
    "The stub driver is missing: this kernel does not have its module",
    "install the package with all modules of this kernel; after an upgrade of the kernel, reboot",
)
UNKNOWN = Code(
    "stub-unknown",
    Level.NOTE,
    "Whether the kernel has the stub driver's module cannot be known",
    "install kmod, or load the module: `modprobe vfio-pci` (`modprobe xen-pciback` in dom0)",
)
DISABLED = Code(
    "stub-disabled",
    Level.PROBLEM,
    "A module that lending needs is forbidden",
    "take that line or word away, and `update-initramfs -u` (`dracut -f`) where it is in there, too",
)
BLACKLISTED = Code(
    "stub-blacklisted",
    Level.NOTE,
    "A module that lending needs is blacklisted: hostdev loads it by its name all the same",
    "take that line away if nobody wants it",
)
IDS = Code(
    "stub-ids",
    Level.NOTE,
    "A stub driver takes devices by itself, at boot or when it is loaded",
    "nothing, where these devices are for guests alone: they return to the stub after each loan; else take"
    " the option away, and `update-initramfs -u` (`dracut -f`)",
)
IGNORED = Code(
    "stub-options-ignored",
    Level.NOTE,
    "A stub driver is built into the kernel, and its options in modprobe.d count for nothing",
    "put them onto the kernel's command line, like `vfio-pci.ids=8086:10d3`",
)

# The driver, its module, and the modules that it needs and people forbid.
_VFIO = ("vfio-pci", "vfio_pci", ("vfio", "vfio_iommu_type1"))
_XEN = ("pciback", "xen_pciback", ())
# The option of each stub by which it takes devices.
_TAKES = {"vfio_pci": "ids", "pci_stub": "ids", "xen_pciback": "hide"}
_DRIVERS = {"vfio_pci": "vfio-pci", "pci_stub": "pci-stub", "xen_pciback": "pciback"}


def check_stub(host: Host) -> Iterator[Finding]:
    """The stub: there, loadable, missing or forbidden."""
    driver, module, needed = _XEN if host.is_dom0 else _VFIO
    place = host.sysfs.path(f"{PCI_DRIVERS}/{driver}")
    told = host.modules.configuration
    barred = [*_forbidden(told, [m for m in (module, *needed) if not host.modules.is_loaded(m)])]
    yield from barred
    if host.sysfs.exists(f"{PCI_DRIVERS}/{driver}"):
        where = host.modules.module_of(driver)
        yield READY.found(f"{place}: {f'module {where}' if where else 'built in'}")
        return
    found, words = host.modules.find(module)
    if found is False:
        yield MISSING.found(f"{place} is not there", words)
        return
    if found is None:
        yield UNKNOWN.found(f"{place} is not there", words)
    if found and not any(each.code == DISABLED.name for each in barred):
        yield READY.found(f"{place} is not there", f"module {module} of {host.kernel_release} is")


def _forbidden(told: Configuration, modules: Iterable[str]) -> Iterator[Finding]:
    for module in modules:
        if reason := told.disabled(module):
            yield DISABLED.found(f"{module}: {reason}")
        elif place := told.blacklisted(module):
            yield BLACKLISTED.found(f"{place}: blacklist {module}")


def check_options(host: Host) -> Iterator[Finding]:
    """Options by which stubs take devices, and those that count for nothing."""
    told, command = host.modules.configuration, host.path(CMDLINE)
    taking: list[str] = []
    ignored: list[str] = []
    for module, option in _TAKES.items():
        lines = told.options(module)
        if _is_built_in(host, _DRIVERS[module]):
            ignored += (_text(module, line) for line in lines if line.place != command)
            lines = [line for line in lines if line.place == command]
        taking += (
            _text(module, line)
            for line in lines
            if any(word.startswith(f"{option}=") and word[-1:] != "=" for word in line.words)
        )
    if taking:
        yield IDS.found(*taking)
    if ignored:
        yield IGNORED.found(*ignored)


def _is_built_in(host: Host, driver: str) -> bool:
    """Whether a driver is there and has no module."""
    return host.sysfs.exists(f"{PCI_DRIVERS}/{driver}") and host.modules.module_of(driver) is None


def _text(module: str, line: Line) -> str:
    return f"{line.place}: {module} {' '.join(line.words)}"


TOPIC = Topic(
    "Stub drivers",
    (READY, MISSING, UNKNOWN, DISABLED, BLACKLISTED, IDS, IGNORED),
    (check_stub, check_options),
)
