"""IOMMU groups: how many devices can be lent alone, and why others cannot.

A group is what the IOMMU can tell apart from the rest; devices share one where something between them may
pass on what one writes to another: a bridge without ACS, or functions of one card
(pci_device_group in drivers/iommu/iommu.c, Documentation/driver-api/vfio.rst). ACS itself stands in the
configuration space, which is not read: that would wake sleeping devices.
"""

from collections.abc import Iterator

from hostdev_core.bus.pci import list_pci
from hostdev_core.doctor.files import CMDLINE, groups, kernel_words, said, told
from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.host import Host
from hostdev_core.kernel.sysfs import IOMMU_GROUPS
from hostdev_core.model.device import PCIDevice

ALONE = Code("groups", Level.OK, "Devices can be lent alone: how many of how many")
FUNCTIONS = Code(
    "groups-of-one-card",
    Level.OK,
    "Functions of one card share a group, and are lent together",
    "name them all, or `--whole-group`",
)
NO_ACS = Code(
    "groups-without-acs",
    Level.NOTE,
    "Devices of different slots share a group: nothing between them has ACS",
    "put the card into another slot (those of the processor rather than of the chipset), turn ACS on in the"
    " firmware's settings, or lend the whole group: `--whole-group`",
)
OVERRIDDEN = Code(
    "acs-overridden",
    Level.NOTE,
    "The kernel is told what ACS isolates: groups may be smaller than what the hardware keeps apart",
    "lend to trusted guests only, or take the word out of the kernel's arguments",
)

_BRIDGES = "06"  # the class of bridges of all kinds
# The first is of a patch that some kernels have (Proxmox); the others are the kernel's own.
_PATCH = "pcie_acs_override="
_WORDS = ("disable_acs_redir=", "config_acs=")


def check_groups(host: Host) -> Iterator[Finding]:
    """How many devices are alone in their group, and which are not."""
    devices = [device for device in list_pci(host.sysfs, tolerant=True) if not device.unread]
    isolated = {*groups(host)}
    found: dict[int, list[PCIDevice]] = {}
    for device in devices:
        if device.iommu_group is not None and not device.is_bridge:
            found.setdefault(device.iommu_group, []).append(device)
    lendable = [
        members
        for group, members in sorted(found.items())
        if str(group) in isolated and not all(map(_is_of_the_board, members))
    ]
    if not lendable:
        return
    shared = [members for members in lendable if len(members) > 1]
    count = sum(not _is_of_the_board(member) for members in lendable for member in members)
    alone = len(lendable) - len(shared)
    yield ALONE.found(
        told(host, IOMMU_GROUPS, f"{len(isolated)} groups"),
        title=f"{alone} of {count} device{'' if count == 1 else 's'} can be lent alone",
    )
    for code, is_such in ((FUNCTIONS, True), (NO_ACS, False)):
        if rows := [_row(members) for members in shared if _is_one_card(members) is is_such]:
            yield code.found(*rows)


def _is_of_the_board(device: PCIDevice) -> bool:
    """Whether nobody lends it: a host bridge, an ISA bridge, ..."""
    return device.class_code.startswith(_BRIDGES)


def _is_one_card(members: list[PCIDevice]) -> bool:
    return len({member.address._replace(function=0) for member in members}) == 1


def _row(members: list[PCIDevice]) -> str:
    words = ", ".join(f"{m.name} ({m.ids}, {m.kernel_driver or 'no driver'})" for m in members)
    return f"IOMMU group {members[0].iommu_group}: {words}"


def check_acs(host: Host) -> Iterator[Finding]:
    """Words of the kernel's arguments that change what ACS does (kernel-parameters.txt, pci=)."""
    found = [
        said(host, CMDLINE, word)
        for word in kernel_words(host)
        if word.startswith(_PATCH)
        or (word.startswith("pci=") and any(name in word for name in _WORDS))
    ]
    if found:
        yield OVERRIDDEN.found(*found)


TOPIC = Topic("IOMMU groups", (ALONE, FUNCTIONS, NO_ACS, OVERRIDDEN), (check_groups, check_acs))
