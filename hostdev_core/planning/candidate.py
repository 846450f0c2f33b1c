"""Check one PCI device that is to be taken by all rules, and choose its stub and its reset."""

import attrs

from hostdev_core.backend import CheckedBackend
from hostdev_core.errors import DeviceError, NotAssignableError
from hostdev_core.inventory.drift import check_same
from hostdev_core.inventory.inventory import look
from hostdev_core.inventory.vfio import check_guest, check_holders, close_all, open_group
from hostdev_core.model.device import PCIDetails, PCIDevice, is_vfio_driver
from hostdev_core.model.domain import PCIHostdev, PrepareFlags
from hostdev_core.model.plan import BackendStep, Step, Stub
from hostdev_core.model.record import Record
from hostdev_core.planning import pci_rules as rules
from hostdev_core.planning import stubs
from hostdev_core.planning.request import Question


@attrs.frozen
class Candidate:
    """A PCI device to take, with all that was read and decided of it; `hostdev` None: a sibling."""

    device: PCIDevice
    details: PCIDetails
    stub: Stub
    hostdev: PCIHostdev | None = None
    module: str | None = None
    reset: Step | None = None
    backend_steps: tuple[BackendStep, ...] = ()


def make_candidate(
    question: Question,
    hostdev: PCIHostdev | None,
    device: PCIDevice,
    details: PCIDetails,
    listed: Record | None,
) -> Candidate:
    """Check one device by all rules, choose its stub and its reset, and ask the backend about it."""
    backend = question.backend(hostdev)
    # Their users are named then.
    has_functions = details.virtual_functions or details.functions_below
    around = look(question.host) if has_functions else question.inventory
    question.ask(
        (rules.check_type, (device, details)),
        (rules.check_override, (device, details)),
        (rules.check_functions, (device, details, around)),
    )
    try:
        stub = _stub(question, backend, hostdev, device, details, listed)
    except DeviceError as error:
        question.refuse(error)
        stub = Stub(device.kernel_driver or "")  # of a plan that is not carried out
    question.ask((check_held, (question, backend, device)))
    # The backend that detached it has checked it then.
    if listed is None or listed.backend != backend.name:
        question.ask((backend.check_device, (device,)))
    is_required = PrepareFlags.REQUIRE_RESET in question.request.flags
    reset = None
    try:
        reset = rules.reset_step(device, details, stub, required=is_required, warn=question.warn)
    except NotAssignableError as error:
        question.refuse(error)
    # Recorded, so that a restore can load it when it was unloaded meanwhile.
    module = None
    if device.kernel_driver is not None:
        module = question.host.modules.module_of(device.kernel_driver)
    steps = backend.extra_steps(device)
    return Candidate(device, details, stub, hostdev, module, reset, steps)


def _stub(
    question: Question,
    backend: CheckedBackend,
    hostdev: PCIHostdev | None,
    device: PCIDevice,
    details: PCIDetails,
    listed: Record | None,
) -> Stub:
    """Choose the stub driver for a device; NotAssignableError for an unmanaged one that is not on it."""
    if listed is not None:
        check_same(question.host, listed, device)
    elif details.driver_override is not None:
        question.warn(
            f"{device.name} has driver_override {details.driver_override!r}, which is not hostdev's: it"
            " gets it back"
        )
    stub = stubs.choose(question, backend, hostdev, device, listed)
    if hostdev is not None:
        rules.check_managed(hostdev, device, on_stub=device.kernel_driver == stub.kernel_driver)
    return stub


def check_held(question: Question, backend: CheckedBackend, device: PCIDevice) -> None:
    """Refuse a device that a guest has, or a process outside the ledger: a VFIO group opens once."""
    if not is_vfio_driver(device.kernel_driver, device.is_vfio):
        return check_guest(backend, device)
    host, group = question.host, device.iommu_group
    records = (question.inventory.records or {}).values()
    siblings = (r for r in records if r.group == group and question.request.is_own(r))
    # The domain that asks may have siblings of it: then its guest holds the group by right.
    asked = False
    if group is not None and not any(map(question.owns_place, siblings)):
        fd = open_group(host, group, device.name)
        if fd is not None:
            close_all([fd])
            asked = True
    return check_holders(backend, device, asked=asked)
