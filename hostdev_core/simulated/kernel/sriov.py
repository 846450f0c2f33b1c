"""Virtual functions, as sriov_numvfs_store() of the kernel's drivers/pci/iov.c makes them."""

import errno

from hostdev_core.model.address import PCIAddress
from hostdev_core.simulated.kernel.device import Device, fail, find_device
from hostdev_core.simulated.kernel.disk import last_part, names, read
from hostdev_core.simulated.kernel.driver_core import Core
from hostdev_core.simulated.kernel.pci import OWN_GROUP, Card, plug, unplug


def set_numvfs(core: Core, device: Device, wanted: int) -> None:
    """Make or remove the VFs of a PF whose lock is held."""
    present = int(read(f"{device.path}/sriov_numvfs") or 0)
    if wanted == present:
        return
    driver = core.drivers.get(device.driver)
    # A driver without sriov_configure() answers ENOENT; pci-pf-stub has nothing else.
    if driver is None or not (driver.drives or driver.name == "pci-pf-stub"):
        fail(errno.ENOENT)
    if wanted and present:  # from one number to another only by way of 0
        fail(errno.EBUSY)
    if wanted:
        _enable(core, device, wanted)
    else:
        end_functions(core, device)


def _enable(core: Core, device: Device, count: int) -> None:
    probe = read(f"{device.path}/sriov_drivers_autoprobe") == "1\n"
    physical = Card(**core.disk.recall(f"devices/{device.name}"))  # type: ignore[arg-type]
    for number in range(count):
        virtual = plug(core.disk, _virtual_card(physical, number))
        if probe:
            core.attach(virtual)


def end_functions(core: Core, device: Device) -> None:
    """Remove all VFs of a PF."""
    for name in names(device.path):
        if name.startswith("virtfn"):
            virtual = find_device(core.disk, last_part(f"{device.path}/{name}") or "")
            if virtual:
                core.release_driver(virtual)
                unplug(core.disk, virtual)
    core.disk.put(f"{device.path}/sriov_numvfs", "0\n")


def _virtual_card(physical: Card, number: int) -> Card:
    """Make the card of a VF: offset 1, stride 1, the PF's ids, an IOMMU group of its own."""
    domain, bus, slot, function = PCIAddress.parse(physical.address)
    routing = (bus << 8 | slot << 3 | function) + 1 + number
    address = PCIAddress(domain, routing >> 8, routing >> 3 & 0x1F, routing & 7)
    group = None if physical.iommu_group is None else OWN_GROUP
    return physical._replace(
        address=str(address),
        iommu_group=group,
        driver_override=None,
        power_control="on",
        sriov_totalvfs=0,
        physfn=physical.address,
        kernel_driver=None,
        net=tuple(f"{name}v{number}" for name in physical.net),
        block=(),
        drm=(),
        sound=(),
    )
