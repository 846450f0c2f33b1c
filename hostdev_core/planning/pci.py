"""Plan PCI devices: each one's siblings, the record it gets, and the steps to its stub."""

from collections.abc import Callable, Sequence

import attrs

from hostdev_core.backend import CheckedBackend
from hostdev_core.bus.pci_state import read_state, state_of
from hostdev_core.bus.unknown import no_such_device
from hostdev_core.inventory.drift import check_same
from hostdev_core.inventory.inventory import Key, look
from hostdev_core.inventory.vfio import check_guest, check_holders, close_all, open_group
from hostdev_core.kernel.vfio import Member
from hostdev_core.model.address import known_address
from hostdev_core.model.device import PCIDetails, PCIDevice, UsedBy, is_vfio_driver
from hostdev_core.model.domain import PCIHostdev, PrepareFlags
from hostdev_core.model.plan import AnyStep, BackendStep, DevicePlan, Step, Stub, steps_to_json
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.planning import pci_rules as rules
from hostdev_core.planning import stubs
from hostdev_core.planning.beside import drivers_beside, list_group, read_drivers_beside
from hostdev_core.planning.lookup import read_all, read_each, resolve_pci
from hostdev_core.planning.request import Decision, Question, State
from hostdev_core.planning.steps import steps_to_stub


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


def plan_device(
    candidate: Candidate,
    owner: UsedBy | None,
    backend: str,
    old: Record | None,
    allow: frozenset[str] = frozenset(),
) -> DevicePlan:
    """Make the record and the steps for one PCI device.

    `old` is its record on the inactive list: that has where it was found, and its backend's steps. A
    sibling is taken under the rules in `allow`.
    """
    device, details, hostdev = candidate.device, candidate.details, candidate.hostdev
    found = Found(
        device.kernel_driver, details.driver_override, details.power_control, candidate.module
    )
    name = device.name
    # An unmanaged device goes to the inactive list in the end, as if it had been detached by hostdev.
    stays = hostdev is not None and not hostdev.managed
    record = Record(
        "pci",
        name,
        Phase.PREPARING,
        # The backend that detached it has to undo its own steps.
        backend=old.backend if old else backend,
        owner=owner,
        found=old.found if old else found,
        home="inactive" if old is not None or stays else "host",
        listed=old is not None,
        handed=hostdev is not None,
        stub=candidate.stub.kernel_driver,
        steps=old.steps if old else steps_to_json(candidate.backend_steps),
        modalias=device.modalias,
        revision=details.revision,
        inode=details.inode,
        group=device.iommu_group,
        physfn=device.physfn,
        allowed=" ".join(sorted(hostdev.allow if hostdev else allow)),
    )
    if old is not None:
        record = record._replace(stuck=old.stuck, usb=old.usb, controller=old.controller)
    # From the inactive list it is on its stub already: only the reset is due.
    return DevicePlan(record, _reset(candidate) if old else _steps(candidate, name, found))


def _steps(candidate: Candidate, name: str, found: Found) -> tuple[AnyStep, ...]:
    """Order the steps: the stub's module, the move to the stub, the reset, the backend's own."""
    stub = candidate.stub
    first = [Step("load", name, stub.module)] if stub.module else []
    return (
        *first,
        *steps_to_stub(name, found, stub.kernel_driver),
        *_reset(candidate),
        *candidate.backend_steps,
    )


def _reset(candidate: Candidate) -> tuple[Step, ...]:
    """The reset that a device needs between two users, if any; also of one that stays on its stub."""
    return (candidate.reset,) if candidate.reset else ()


@attrs.frozen
class PCIPlanner:
    """Plans for PCI devices; `check_free` raises DeviceInUseError for a sibling that is in use."""

    check_free: Callable[[Question, PCIDevice, tuple[str, str]], None]

    def resolve(self, question: Question, hostdev: PCIHostdev) -> PCIDevice:
        """Find the device of a hostdev, an endpoint."""
        device = resolve_pci(question.host, hostdev, question.inventory)
        rules.check_type(device)
        return device

    def read(self, question: Question, hostdev: PCIHostdev, device: PCIDevice) -> PCIDevice:
        """Nothing more is read of one device: `plan` reads all together."""
        return device

    def plan(
        self, question: Question, pairs: Sequence[tuple[PCIHostdev, PCIDevice]]
    ) -> list[DevicePlan]:
        """Plan these devices, and the siblings that must be taken with them."""
        taken = {device.name for _, device in pairs}
        targets: list[tuple[PCIHostdev | None, PCIDevice]] = [*pairs]
        members = {device: _members(question, device) for _, device in pairs}
        # Read once: the rules and the state that is compared after the claim go by the same.
        groups = {device.iommu_group for _, device in pairs}
        host = question.host
        others = {g: rules.other_members(host, g, list_group(host, g)) for g in groups}
        for _, device in pairs:
            if question.lender.backend.driver.needs_iommu:
                for_guest = question.request.is_for_guest
                question.risks += rules.find_vfio_risks(question.host, device, for_guest=for_guest)
            if question.request.is_for_guest:
                strangers = others[device.iommu_group]
                siblings = self._siblings(question, device, members[device], strangers, taken)
                taken |= {sibling.name for sibling in siblings}
                members |= {sibling: _members(question, sibling) for sibling in siblings}
                targets += [(None, sibling) for sibling in siblings]
        details = read_all(question.host, [device.address for _, device in targets])
        for _, device in targets:
            found = details[device.address]
            if found.inode is None:  # it was pulled while it was read
                raise no_such_device("PCI device", device.name)
            strangers = others[device.iommu_group]
            beside = drivers_beside(question.inventory, device, members[device], strangers)
            question.states["pci", device.name] = state_of(device, found, beside)
        request, backend = question.request, question.lender.backend.name
        allow = request.allow
        planned = [
            (_candidate(question, hostdev, device, details[device.address], listed), listed)
            for hostdev, device in targets
            for listed in (_listed(question, device),)
        ]
        return [plan_device(each, request.owner, backend, old, allow) for each, old in planned]

    def read_again(self, decision: Decision, keys: Sequence[Key]) -> dict[Key, State]:
        """Read the states of devices that are claimed, as they are now; KernelTimeoutError for a hang.

        DeviceInUseError for one that a process or a guest has by now.
        """
        question = decision.question
        host, names = question.host, {name: known_address(name) for _, name in keys}
        beside = {
            r.address: read_drivers_beside(host, r) for r in decision.records if r.address in names
        }
        found = read_each(
            host, names, lambda name: read_state(host.sysfs, names[name], beside[name])
        )
        asked = {device.name: hostdev for hostdev, device in decision.pairs if device is not None}
        for name, state in found.items():
            _check_held(question, question.backend(asked.get(name)), state.device)
        return {("pci", name): state for name, state in found.items()}

    def _siblings(
        self,
        question: Question,
        device: PCIDevice,
        members: Sequence[PCIDevice],
        others: Sequence[Member],
        taken: set[str],
    ) -> list[PCIDevice]:
        """Those of the `members` of a device's IOMMU group that must be taken, too; `others` cannot be.

        VFIO checks that a group is viable when a guest opens it. GroupNotViableError when the request
        does not allow to take siblings.
        """
        request, inventory = question.request, question.inventory
        if not members and not others:
            return []
        records = (inventory.record_of_device(("pci", member.name)) for member in members)
        own = {record.address for record in records if record and request.is_own(record)}
        whole = PrepareFlags.WHOLE_GROUP in request.flags
        siblings = rules.group_blockers(
            device, members, taken | own | _stubbed(question, members), others, whole=whole
        )
        for sibling in siblings:
            self.check_free(question, sibling, ("pci", sibling.name))
        return siblings


def _members(question: Question, device: PCIDevice) -> list[PCIDevice]:
    """The other members of a device's IOMMU group."""
    if device.iommu_group is None:
        return []
    group = question.inventory.group(device.iommu_group)
    return [member for member in group if member.address != device.address]


def _stubbed(question: Question, members: Sequence[PCIDevice]) -> set[str]:
    """The members on a stub of a hypervisor without VFIO: the rule about viable groups is VFIO's."""
    backend = question.lender.backend
    if is_vfio_driver(backend.stubs[0]):
        return set()
    return {m.name for m in members if backend.accepts_stub(m.kernel_driver)}


def _listed(question: Question, device: PCIDevice) -> Record | None:
    """The record of a device on the inactive list; None when it is not there."""
    record = question.inventory.record_at_address(("pci", device.name))
    return record if record is not None and record.phase is Phase.INACTIVE else None


def _candidate(
    question: Question,
    hostdev: PCIHostdev | None,
    device: PCIDevice,
    details: PCIDetails,
    listed: Record | None,
) -> Candidate:
    """Check one device by all rules, choose its stub and its reset, and ask the backend about it."""
    backend = question.backend(hostdev)
    rules.check_type(device, details)
    rules.check_override(device, details)
    refused = details.virtual_functions or details.functions_below  # whose users are named then
    rules.check_functions(device, details, look(question.host) if refused else question.inventory)
    stub = _stub(question, backend, hostdev, device, details, listed)
    _check_held(question, backend, device)
    # The backend that detached it has checked it then.
    if listed is None or listed.backend != backend.name:
        backend.check_device(device)
    reset = rules.reset_step(
        device,
        details,
        stub,
        required=PrepareFlags.REQUIRE_RESET in question.request.flags,
        warn=question.warn,
    )
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


def _check_held(question: Question, backend: CheckedBackend, device: PCIDevice) -> None:
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
