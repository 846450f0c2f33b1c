"""Plan PCI devices: each one's siblings, the record it gets, and the steps to its stub."""

from collections.abc import Callable, Sequence

import attrs

from hostdev_core.bus.pci_state import read_state, state_of
from hostdev_core.bus.unknown import no_such_device
from hostdev_core.errors import NotAssignableError
from hostdev_core.inventory.inventory import Key
from hostdev_core.kernel.vfio import Member
from hostdev_core.model.address import known_address
from hostdev_core.model.device import PCIDevice, UsedBy, is_vfio_driver
from hostdev_core.model.domain import PCIHostdev, PrepareFlags
from hostdev_core.model.plan import AnyStep, DevicePlan, Step, steps_to_json
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.planning import pci_rules as rules
from hostdev_core.planning.beside import drivers_beside, list_group, read_drivers_beside
from hostdev_core.planning.candidate import Candidate, check_held, make_candidate
from hostdev_core.planning.lookup import read_all, read_each, resolve_pci
from hostdev_core.planning.request import Decision, Question, State
from hostdev_core.planning.steps import steps_to_stub


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
                try:
                    question.risks += rules.find_vfio_risks(host, device, for_guest=for_guest)
                except NotAssignableError as error:
                    question.refuse(error)
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
            (make_candidate(question, hostdev, device, details[device.address], listed), listed)
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
            check_held(question, question.backend(asked.get(name)), state.device)
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
        known = taken | own | _stubbed(question, members)
        try:
            siblings = rules.group_blockers(device, members, known, others, whole=whole)
        except NotAssignableError as error:
            question.refuse(error)
            return []
        return [
            sibling
            for sibling in siblings
            if question.ask((self.check_free, (question, sibling, ("pci", sibling.name))))
        ]


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
