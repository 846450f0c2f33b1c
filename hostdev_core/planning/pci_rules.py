"""The rules: what is refused. Pure, over what was seen."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from hostdev_core.errors import (
    DeviceInUseError,
    GroupNotViableError,
    NotAssignableError,
    VetoError,
)
from hostdev_core.hookspecs import Refusal
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.kernel.vfio import Member
from hostdev_core.model.device import NO_ANSWER, PCIDetails, PCIDevice, is_vfio_driver
from hostdev_core.model.domain import Hostdev, PCIHostdev, USBHostdev
from hostdev_core.model.plan import Stub
from hostdev_core.model.record import Phase, Record
from hostdev_core.model.steps import Step

BRIDGE_HEADERS = frozenset({1, 2})  # PCI-to-PCI, CardBus


def reset_step(
    device: PCIDevice,
    details: PCIDetails,
    stub: Stub,
    *,
    required: bool,
    warn: Callable[[str], None],
) -> Step | None:
    """The reset that a device needs on its stub; none for VFIO, which resets at open and close."""
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
    """Refuse what only type 0 of a header can be: bridges, what does not answer, and unknown ones."""
    header = details.header_type if details is not None else None
    if details is not None and header == NO_ANSWER:
        raise _no_answer(device, details)
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


def check_takes_usb(driver: str, hostdev: USBHostdev, *, takes_usb: bool) -> None:
    """Refuse a USB device, there or not, for a hypervisor that takes PCI devices only."""
    if not takes_usb:
        raise NotAssignableError(
            f"{hostdev} is a USB device, and {driver} takes PCI devices only; lend the USB controller"
            " that it is plugged into, with all that is on it, or use another hypervisor",
            device=str(hostdev),
            rule="pci-only",
        )


def check_functions(device: PCIDevice, details: PCIDetails, inventory: Inventory) -> None:
    """Refuse a PF with virtual functions, and a VF whose PF is lent or on a VFIO driver.

    And a device whose driver has made PCI functions: they would vanish under who uses them.
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


def check_together(records: Iterable[Record]) -> None:
    """Refuse a request that takes a device away with another one (a controller and what is on it)."""
    earlier: dict[tuple[str, str], Record] = {}
    for record in records:
        if other := find_conflict(record, earlier):
            raise NotAssignableError(
                f"{record.address} and {other.address} cannot be lent together: one takes the other"
                " along; name one of them",
                device=record.address,
                rule="together",
            )
        earlier[record.key] = record


Holds = Callable[[Record], bool]


def _always(record: Record) -> bool:
    return True


def find_conflict(
    wanted: Record, records: Mapping[tuple[str, str], Record], holds: Holds = _always
) -> Record | None:
    """The record that is in the way of a claim: the rules that the claim decides by.

    The same device; another owner in the same IOMMU group; a PF with a claimed VF and the reverse;
    a USB device whose controller is claimed and the reverse. `holds` tells whether a record's device
    is still there, and is asked only where it matters: without it, the record has no place any more.
    """
    return next((record for record in records.values() if _conflicts(wanted, record, holds)), None)


def _conflicts(wanted: Record, other: Record, holds: Holds) -> bool:
    if wanted.key == other.key:
        return not (other.phase is Phase.INACTIVE and other.op is None and wanted.listed)
    return _meet(wanted, other) and holds(other)


def _meet(wanted: Record, other: Record) -> bool:
    """Whether one is in the way of the other where both are."""
    if wanted.group is not None and wanted.group == other.group:
        same = (
            wanted.owner is not None
            and other.owner is not None
            and wanted.owner.is_same_owner(other.owner)
        )
        if (other.owner is not None and not same) or other.op is not None or is_left_over(other):
            return True
    families = {(wanted.physfn, other.address), (other.physfn, wanted.address)}
    families |= {(wanted.controller, other.address), (other.controller, wanted.address)}
    return any(left is not None and left == right for left, right in families)


def is_stranded(record: Record, records: Iterable[Record], holds: Holds = _always) -> bool:
    """Whether it stays on its stub for an IOMMU group that nobody uses any more, or is gone itself."""
    if record.handed or record.group is None or record.op is not None or record.stuck is not None:
        return False
    if record.phase not in {Phase.ACTIVE, Phase.RELEASING}:
        return False
    others = (r for r in records if r.group == record.group and r.owner is not None)
    used = any((other.op is not None or other.handed) and holds(other) for other in others)
    return not used or not holds(record)


def is_void(record: Record, holds: Holds) -> bool:
    """Whether a domain's record is about a device that is gone: another one may take its address.

    One on the inactive list is for a person to decide: somebody detached that device by hand.
    """
    return record.owner is not None and record.op is None and not holds(record)


def is_left_over(record: Record) -> bool:
    """Whether a record stands half way: what it is needs an operation that is alive."""
    return record.phase in {Phase.PREPARING, Phase.RELEASING} and (
        record.op is not None or record.stuck is not None
    )


def in_use(
    wanted: str, record: Record, doing: str | None = None, *, then: str | None = None
) -> DeviceInUseError:
    """The error for a claim that a record is in the way of; `then`: what to do about that."""
    user = str(record.owner) if record.owner else "the inactive list"
    if doing is not None:
        state = f"at work: {doing}"
    elif record.stuck:
        state = f"stuck: {record.stuck}"
    else:
        state = f"in use by {user}" if record.owner else "on the inactive list"
    how = "" if wanted == record.address else f"{wanted} belongs with {record.address}, which is "
    subject = how or f"{wanted} is "
    whose = "" if state.endswith(user) else f" (for {user})"
    more = f"; {then}" if then else ""
    return DeviceInUseError(
        f"{subject}{state}{whose}{more}", device=wanted, used_by=record.owner, rule="lent"
    )


def raise_standing(refusals: Iterable[Refusal]) -> None:
    """Raise one VetoError for the refusals that nothing passes; without any, go on."""
    standing = list(refusals)
    if standing:
        raise VetoError("; ".join(str(refusal) for refusal in standing), refusals=standing)
