"""Check PCI devices by the rules for IOMMU groups, VFIO, SR-IOV, bridges and resets, over one look."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from hostdev_core.errors import GroupNotViableError, InvalidAddressError, NotAssignableError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.kernel.sysfs import IOMMU_GROUPS
from hostdev_core.kernel.vfio import Member, is_isolated
from hostdev_core.model.address import known_address
from hostdev_core.model.device import NO_ANSWER, PCIDetails, PCIDevice, is_vfio_driver
from hostdev_core.model.domain import Hostdev, PCIHostdev
from hostdev_core.model.plan import Step, Stub
from hostdev_core.model.rulebook import Refusal

_NOIOMMU = "enable_unsafe_noiommu_mode"
BRIDGE_HEADERS = frozenset({1, 2})  # PCI-to-PCI, CardBus


def reset_step(
    device: PCIDevice,
    details: PCIDetails,
    stub: Stub,
    *,
    required: bool,
    warn: Callable[[str], None],
) -> Step | None:
    """Choose the reset that a device needs on its stub; none for VFIO, which resets at open and close.

    A device without a reset method is warned of, or refused when a reset is `required`.
    """
    if not details.reset_methods:
        message = f"{device.name} has no reset method: a guest finds it as the last user left it"
        if required:
            message += "; lend it without requiring a reset where that does not matter"
            raise NotAssignableError(message, device=device.name, rule="no-reset")
        warn(message)
        return None
    if is_vfio_driver(stub.kernel_driver, device.gives_vfio):
        return None
    return Step("reset", device.name, "required" if required else "if possible")


def check_type(device: PCIDevice, details: PCIDetails | None = None) -> None:
    """Refuse a device whose configuration header is not of type 0: a bridge, or one that does not answer.

    Only endpoints, of type 0, can be assigned (vfio_pci_core_register_device() in the kernel).
    """
    header = details.header_type if details is not None else None
    if details is not None and header == NO_ANSWER:
        raise _no_answer(device, details)
    # By the class, which a listing knows, and by the header, which VFIO goes by.
    if device.is_bridge or header in BRIDGE_HEADERS:
        what = f"class {device.class_code}"
        if details is not None:
            what += f", header type {header}"
        raise NotAssignableError(
            f"{device.name} is a bridge ({what}); name the devices behind it",
            device=device.name,
            rule="bridge",
        )
    if header not in {0, None}:
        raise NotAssignableError(
            f"{device.name} has header type {header} (class {device.class_code}), which PCI does not"
            " define; VFIO takes endpoints, of type 0, only. Its configuration space is damaged, or not"
            f" its own: see `lspci -xxx -s {device.name}` and dmesg, then turn the machine off and on",
            device=device.name,
            rule="header-type",
            evidence=[f"header type {header}"],
        )


def _no_answer(device: PCIDevice, details: PCIDetails) -> NotAssignableError:
    state = details.power_state or "unknown"
    return NotAssignableError(
        f"{device.name} does not answer: its configuration space reads all ones, its power state is"
        f" {state}; it fell off the bus, or does not come out of D3cold. Let the kernel look for it"
        f" again: echo 1 > /sys/bus/pci/devices/{device.name}/remove; echo 1 > /sys/bus/pci/rescan. If that"
        " does not help, turn the machine off and on",
        device=device.name,
        rule="no-answer",
        evidence=[f"power state {state}", f"kernel driver {device.kernel_driver or 'none'}"],
    )


def check_override(device: PCIDevice, details: PCIDetails) -> None:
    """Refuse a device whose driver_override could not be put back byte by byte: it is kept as a text."""
    if "\N{REPLACEMENT CHARACTER}" in (details.driver_override or ""):
        raise NotAssignableError(
            f"driver_override of {device.name} is no UTF-8 text, and could not be put back as it is;"
            f" clear it first: echo > /sys/bus/pci/devices/{device.name}/driver_override",
            device=device.name,
            rule="override-text",
        )


def check_functions(device: PCIDevice, details: PCIDetails, inventory: Inventory) -> None:
    """Refuse by SR-IOV: a PF with virtual functions, and a VF whose PF is lent or on a VFIO driver.

    And a device whose driver has made PCI functions of its own: they go when it is unbound, in use or not.
    That a PF and its VF are not claimed at one time is planning/conflicts.py's.
    """
    if details.functions_below:
        names = [_with_user(inventory, name) for name in details.functions_below]
        driver = device.kernel_driver or "its driver"
        raise NotAssignableError(
            f"{device.name} has PCI functions of its own ({', '.join(names)}), which go when it is"
            f" unbound from {driver}; when nobody needs them, unbind it yourself first: echo"
            f" {device.name} > /sys/bus/pci/devices/{device.name}/driver/unbind",
            device=device.name,
            rule="functions-below",
        )
    if details.numvfs or details.virtual_functions:
        names = [_with_user(inventory, name) for name in details.virtual_functions]
        raise NotAssignableError(
            f"{device.name} has {details.numvfs or len(names)} virtual functions ({', '.join(names)});"
            f" write 0 to its sriov_numvfs first, or lend a virtual function",
            device=device.name,
            rule="virtual-functions",
        )
    parent = inventory.pci.get(device.physfn or "")
    if parent is not None and (parent.used_by is not None or is_vfio_driver(parent.kernel_driver)):
        raise NotAssignableError(
            f"{device.name} is a virtual function of {_with_user(inventory, parent.name)}, which is on"
            f" {parent.kernel_driver}; give the physical function back first",
            device=device.name,
            rule="physical-function",
        )


def _with_user(inventory: Inventory, name: str) -> str:
    device = inventory.pci.get(name)
    return name if device is None or device.used_by is None else f"{name}, lent to {device.used_by}"


def check_managed(hostdev: Hostdev, device: PCIDevice, *, on_stub: bool) -> None:
    """Refuse an unmanaged device that was not detached first."""
    if isinstance(hostdev, PCIHostdev) and not hostdev.managed and not on_stub:
        raise NotAssignableError(
            f"{device.name} is unmanaged and on {device.kernel_driver or 'no driver'}; detach it first:"
            f" `hostdev device detach {device.name}`",
            device=device.name,
            rule="not-detached",
        )


def group_blockers(
    device: PCIDevice,
    members: Sequence[PCIDevice],
    taken: Collection[str],
    others: Sequence[Member] = (),
    *,
    whole: bool,
) -> list[PCIDevice]:
    """The siblings that must be taken too; GroupNotViableError when nobody asked for that.

    "group N is not viable" is what QEMU says of it, without naming the culprit. `others` are members
    that are no PCI devices, on a driver: they cannot be taken.
    """
    blockers = [member for member in members if member.name not in taken and member.blocks_group]
    if not others and (not blockers or whole):
        return blockers
    # QEMU and VFIO name the group only: these are the members to do something about.
    rows = [
        *(f"{m.name} (class {m.class_code}, {m.ids}) on {m.kernel_driver}" for m in blockers),
        *(f"{other.name} (on the {other.bus} bus) on {other.kernel_driver}" for other in others),
    ]
    advice = ["Name them too, or take the whole group (--whole-group)"] if blockers else []
    advice += [
        f"{each.name} is no PCI device; unbind it from {each.kernel_driver} yourself, when nobody"
        " needs it"
        for each in others
    ]
    raise GroupNotViableError(
        f"{device.name} shares IOMMU group {device.iommu_group} with devices on host drivers:"
        f" {'; '.join(rows)}. {'. '.join(advice)}",
        device=device.name,
        culprits=[*(member.name for member in blockers), *(other.name for other in others)],
        rule="group-not-viable",
        evidence=rows,
    )


def allows_noiommu(host: Host) -> bool:
    """Whether VFIO binds devices without an IOMMU, or would once its module is loaded.

    KernelError where that cannot be read.
    """
    value = host.sysfs.read(f"module/vfio/parameters/{_NOIOMMU}")
    if value is None:
        # It is not loaded: its options decide, the last one of several.
        words = [w for w in host.modules.options("vfio").split() if w.startswith(f"{_NOIOMMU}=")]
        value = words[-1].partition("=")[2] if words else ""
    return value[:1] in {"Y", "y", "1"}


def other_members(host: Host, group: int | None, listed: Iterable[str]) -> list[Member]:
    """Those of the `listed` members of an IOMMU group outside the PCI bus on a driver VFIO does not bear."""
    folder = f"{IOMMU_GROUPS}/{group}/devices"
    found: list[Member] = []
    for name in listed:
        try:
            known_address(name)
        except InvalidAddressError:
            driver = host.sysfs.link(f"{folder}/{name}/driver")
            # VFIO has drivers for such devices, too (vfio-platform, vfio-fsl-mc).
            if driver is not None and not driver.startswith("vfio"):
                bus = host.sysfs.link(f"{folder}/{name}/subsystem") or "unknown"
                found.append(Member(name, bus, driver))
    return found


def find_vfio_risks(host: Host, device: PCIDevice, *, for_guest: bool) -> Iterator[Refusal]:
    """Yield refusals for a group that VFIO does not isolate, or would refuse, by its files in sysfs.

    KernelError when these cannot be read; NotAssignableError for a device without a group, unless VFIO
    takes such devices (its no-IOMMU mode).
    """
    group = device.iommu_group
    if group is None and not allows_noiommu(host):
        raise NotAssignableError(
            f"{device.name} has no IOMMU group: the IOMMU is off or absent; turn on VT-d or AMD-Vi in"
            " the firmware, and boot with intel_iommu=on where the kernel leaves it off",
            device=device.name,
            rule="no-iommu",
        )
    if group is None or not is_isolated(host.sysfs, group):
        yield Refusal(
            "no-isolation",
            device.name,
            "VFIO's no-IOMMU mode isolates nothing: the device can write to all of the host's memory."
            " Programs like DPDK take it so, QEMU does not; turn the IOMMU on",
            (
                f"IOMMU group {group} is named vfio-noiommu"
                if group is not None
                else f"{_NOIOMMU}=Y",
            ),
        )
    elif for_guest and (regions := _direct_regions(host, group)):
        yield Refusal(
            "reserved-regions",
            device.name,
            "the firmware wants memory mapped for the device itself, and the kernel does not let VFIO"
            " have it; see the firmware's settings for that device",
            tuple(f"IOMMU group {group}: {region}" for region in regions),
        )


def _direct_regions(host: Host, group: int) -> list[str]:
    """Read the regions that a group's firmware wants mapped; VFIO bears "direct-relaxable" ones.

    Format: Documentation/ABI/testing/sysfs-kernel-iommu_groups.
    """
    lines = (host.sysfs.read(f"{IOMMU_GROUPS}/{group}/reserved_regions") or "").splitlines()
    return [line for line in lines if line.split()[2:] == ["direct"]]
