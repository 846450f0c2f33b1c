"""What Cloud Hypervisor wants to hear of a lent device: on its command line, and of its REST API."""

from collections.abc import Iterable

from hostdev_core import Assignment, Device, InputError, PCIDevice


def argument(device: Device) -> str:
    """A value of `--device`, and what `ch-remote add-device` takes; source: docs/vfio.md."""
    return f"path={_path(device)}"


def command_line(assignments: Iterable[Assignment]) -> tuple[str, ...]:
    """One `--device` with a value for each assignment; nothing for none.

    Since version 36 a second `--device` is an error ("cannot be used multiple times"), so the
    `arguments` of several assignments cannot stand one after the other.
    """
    values = [argument(_device(assignment)) for assignment in assignments]
    return ("--device", *values) if values else ()


def api_device(
    assignment: Assignment, *, id: str | None = None, iommu: bool = False
) -> dict[str, str | bool]:
    """The JSON of a device: the body of `PUT /api/v1/vm.add-device`, or one of VmConfig's `devices`.

    `id` is what `vm.remove-device` calls it (Cloud Hypervisor makes one up otherwise), `iommu` puts
    it behind the virtual IOMMU. Source: DeviceConfig in vmm/src/api/openapi/cloud-hypervisor.yaml,
    which has more keys; add what you need of them.
    """
    body: dict[str, str | bool] = {"path": _path(_device(assignment)), "iommu": iommu}
    return body if id is None else body | {"id": id}


def _device(assignment: Assignment) -> Device:
    if not isinstance(assignment.device, PCIDevice):
        raise InputError(
            f"{assignment.hostdev} was not lent as a PCI device; Cloud Hypervisor takes no other"
        )
    return assignment.device


def _path(device: Device) -> str:
    return f"/sys/bus/pci/devices/{device.name}/"
