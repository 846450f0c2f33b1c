"""VFIO as it is set up: no-IOMMU mode, IOMMUFD, its nodes and who may open them.

Sources: Documentation/driver-api/vfio.rst, Documentation/userspace-api/iommufd.rst, and the modes that
drivers/vfio/container.c and group.c give their nodes.
"""

from collections.abc import Iterator

from hostdev_core.doctor.files import mode, names, said, switched_on, told
from hostdev_core.doctor.finding import Code, Finding, Level, Topic
from hostdev_core.host import Host
from hostdev_core.kernel.sysfs import IOMMU_GROUPS, PCI_DRIVERS
from hostdev_core.kernel.vfio import CONTAINER, is_isolated

NOIOMMU = Code(
    "noiommu-mode",
    Level.NOTE,
    "VFIO's no-IOMMU mode is on: what is lent so can write to all of the host's memory",
    "`echo N >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode`, and take the option away, unless"
    " something like DPDK needs it",
)
IOMMUFD = Code("iommufd", Level.OK, "IOMMUFD is there, beside VFIO's groups")
NO_IOMMUFD = Code("iommufd-absent", Level.OK, "There is no IOMMUFD: VFIO's groups are used")
NO_NODE = Code(
    "vfio-no-node",
    Level.PROBLEM,
    "VFIO is loaded, and there is no node for a hypervisor to open",
    "`modprobe vfio`, and `udevadm trigger --subsystem-match=misc`; in a container, bring /dev/vfio in",
)
CLOSED = Code(
    "vfio-node-closed",
    Level.NOTE,
    "Only root may open VFIO's container: a QEMU of another user cannot start",
    "`chmod 0666 /dev/vfio/vfio`, as the kernel makes it; it opens no device. See rules of udev for it",
)
OPEN_GROUP = Code(
    "vfio-group-open",
    Level.NOTE,
    "Every user may open the VFIO node of a group, and so the devices in it",
    "give it to the user who runs the guest: `chmod 0600` and `chown` the node; see rules of udev for it",
)

_FOLDER = "dev/vfio"
_IOMMUFD = "dev/iommu"


def check_noiommu(host: Host) -> Iterator[Finding]:
    """No-IOMMU mode, on or in use."""
    evidence = switched_on(host, "vfio", "enable_unsafe_noiommu_mode")
    for group in host.sysfs.names(IOMMU_GROUPS):
        if not is_isolated(host.sysfs, group):
            evidence.append(told(host, f"{IOMMU_GROUPS}/{group}/name", "vfio-noiommu"))
    if evidence:
        yield NOIOMMU.found(*evidence)


def check_iommufd(host: Host) -> Iterator[Finding]:
    """IOMMUFD, and how many devices have a node of their own for it."""
    if host.is_dom0:
        return
    if mode(host, _IOMMUFD) is None:
        yield NO_IOMMUFD.found(f"{host.path(_IOMMUFD)} is not there")
        return
    devices = names(host, f"{_FOLDER}/devices")
    yield IOMMUFD.found(
        f"{host.path(_IOMMUFD)} is there",
        said(host, f"{_FOLDER}/devices", ", ".join(devices) or "none yet"),
    )


def check_nodes(host: Host) -> Iterator[Finding]:
    """The nodes of VFIO: there, and open to whom."""
    if host.is_dom0:
        return
    container = mode(host, CONTAINER)
    if container is None:
        is_loaded = host.sysfs.exists(f"{PCI_DRIVERS}/vfio-pci")
        if is_loaded and mode(host, _IOMMUFD) is None:
            yield NO_NODE.found(
                f"{host.sysfs.path(PCI_DRIVERS)}/vfio-pci is there",
                f"{host.path(CONTAINER)} is not there",
                f"{host.path(_IOMMUFD)} is not there",
            )
    elif container & 0o006 != 0o006:
        yield CLOSED.found(said(host, CONTAINER, f"mode {container:04o}"))
    for name in names(host, _FOLDER):
        node = f"{_FOLDER}/{name}"
        rights = mode(host, node) if name.removeprefix("noiommu-").isdecimal() else None
        if rights is not None and rights & 0o006:
            yield OPEN_GROUP.found(said(host, node, f"mode {rights:04o}"))


TOPIC = Topic(
    "VFIO",
    (NOIOMMU, IOMMUFD, NO_IOMMUFD, NO_NODE, CLOSED, OPEN_GROUP),
    (check_noiommu, check_iommufd, check_nodes),
)
