"""Decide for one request: resolve its devices, check everything, make the plan. Nothing is written."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from hostdev_core import backend as answers
from hostdev_core.bus.pci import read_pci, see_vfio
from hostdev_core.hookspecs import Refusal
from hostdev_core.inventory.drift import check_recorded, check_same, replugged
from hostdev_core.inventory.holders import check_claimed
from hostdev_core.inventory.inventory import Inventory
from hostdev_core.inventory.unrecorded import warn_of_plan
from hostdev_core.inventory.vfio import check_holders, close_all, open_group
from hostdev_core.model.context import Context
from hostdev_core.model.device import PCIDetails, PCIDevice, USBDevice, is_vfio_driver
from hostdev_core.model.domain import Hostdev, PCIHostdev, PrepareFlags, USBHostdev
from hostdev_core.model.plan import DevicePlan, Plan, Stub
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning import lookup as survey
from hostdev_core.planning import pci_rules as rules
from hostdev_core.planning import stubs, vfio
from hostdev_core.planning.module_loads import check_loads
from hostdev_core.planning.pci import Candidate, plan_device
from hostdev_core.planning.request import Decision, Device, Request, in_the_way
from hostdev_core.planning.risks import check_risks

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.local_driver import LocalHostdevDriver


def decide(
    driver: "LocalHostdevDriver",
    conn: "Connection",
    request: Request,
    inventory: Inventory,
    *,
    ask: bool = True,
) -> Decision:
    """Check all, change nothing; the first refusal is raised, those of plugins all together."""
    return _Decider(driver, conn, request, inventory).decide(ask)


@attrs.define(eq=False)
class _Decider:
    driver: "LocalHostdevDriver"
    conn: "Connection"
    request: Request
    inventory: Inventory
    warnings: list[str] = attrs.field(factory=list[str])
    risks: list[Refusal] = attrs.field(factory=list[Refusal])

    def decide(self, ask: bool) -> Decision:
        pairs = tuple((hostdev, self._resolve(hostdev)) for hostdev in self.request.hostdevs)
        survey.check_duplicates(device.name for _, device in pairs if device is not None)
        present, upgrades, found = self._sort(pairs)
        fresh, pairs = survey.ask_fresh(self.conn.host, found, pairs)
        pci = [(h, d) for h, d in fresh if isinstance(h, PCIHostdev) and isinstance(d, PCIDevice)]
        usb = [(h, d) for h, d in fresh if isinstance(h, USBHostdev) and isinstance(d, USBDevice)]
        plans = [*self._plan_pci(pci), *(self._plan_usb(*pair) for pair in usb)]
        rules.check_together(device.record for device in plans)
        missing = tuple(str(hostdev) for hostdev, device in pairs if device is None)
        plan = Plan(self.request.owner, tuple(plans), tuple(present), tuple(upgrades), missing)
        check_loads(self.conn.host, self.driver.stubs, plan, self.inventory, self._warn)
        plan = attrs.evolve(plan, warnings=(*self.warnings, *warn_of_plan(plans)))
        decision = Decision(plan, self.inventory, pairs)
        if not ask:
            return decision
        said, vain = check_risks(self.conn, self.request, decision, self.risks)
        plan = attrs.evolve(plan, warnings=(*plan.warnings, *said, *vain))
        return attrs.evolve(decision, plan=plan, vain=tuple(vain))

    def _warn(self, warning: str) -> None:
        """A warning for the plan, once for all devices that it is about."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _resolve(self, hostdev: Hostdev) -> Device | None:
        if isinstance(hostdev, PCIHostdev):
            device = survey.resolve_pci(self.conn.host, hostdev, self.inventory)
            rules.check_type(device)
            return see_vfio(self.conn.host.sysfs, device)
        rules.check_takes_usb(self.driver.name, hostdev, takes_usb=self.driver.takes_usb)
        cold = PrepareFlags.COLD_BOOT in self.request.flags
        return survey.resolve_usb(self.conn.host, hostdev, self.inventory, cold_boot=cold)

    def _sort(
        self, pairs: Iterable[tuple[Hostdev, Device | None]]
    ) -> tuple[list[Record], list[Record], list[tuple[Hostdev, Device]]]:
        """What its owner has already, what it has as a sibling, and what is to be taken."""
        present: list[Record] = []
        upgrades: list[Record] = []
        fresh: list[tuple[Hostdev, Device]] = []
        for hostdev, device in pairs:
            if device is None:
                continue
            record = self.inventory.record_at(device)
            if record is not None and self._is_mine(record):
                check_recorded(self.conn.host, record, device)
                (present if self._is_present(record) else upgrades).append(record)
            else:
                self._check_free(device)
                fresh.append((hostdev, device))
        return present, upgrades, fresh

    def _is_mine(self, record: Record) -> bool:
        if record.op is not None or record.stuck is not None:
            return False
        if self.request.owner is None:
            return record.phase is Phase.INACTIVE
        return (
            record.owner is not None
            and record.phase in {Phase.ACTIVE, Phase.RELEASING}
            and self.request.owner.is_same_owner(record.owner)
            and (not record.handed or PrepareFlags.ALLOW_SAME_OWNER in self.request.flags)
        )

    def _is_present(self, record: Record) -> bool:
        return record.handed and record.phase is not Phase.RELEASING

    def _check_free(self, device: Device) -> None:
        record = self.inventory.record_at(device)
        wanted = Record(
            device.kind,
            device.name,
            Phase.PREPARING,
            self.driver.name,
            owner=self.request.owner,
            listed=record is not None and record.phase is Phase.INACTIVE and record.op is None,
            group=device.iommu_group if isinstance(device, PCIDevice) else None,
            physfn=device.physfn if isinstance(device, PCIDevice) else None,
            controller=device.controller if isinstance(device, USBDevice) else None,
        )
        self.check_conflict(wanted)

    def check_conflict(self, wanted: Record) -> None:
        records = dict(self.inventory.records or {})
        old = records.get(wanted.key)
        if old is not None and rules.is_void(old, self._holds) and not old.left_traces:
            del records[wanted.key]  # the claim ends it
        other = rules.find_conflict(wanted, records, self._holds)
        if other is None:
            return
        stick = self.inventory.usb.get(other.address) if other.kind == "usb" else None
        since = replugged(self.conn.host, other, stick) if stick is not None else None
        state_dir = self.conn.host.state_dir
        raise in_the_way(state_dir, wanted, other, records.values(), self._holds, since=since)

    def _holds(self, record: Record) -> bool:
        return self.inventory.holds(self.conn.host, record)

    def _plan_pci(self, pairs: Sequence[tuple[PCIHostdev, PCIDevice]]) -> list[DevicePlan]:
        wanted = {device.name: (hostdev, device) for hostdev, device in pairs}
        targets: list[tuple[PCIHostdev | None, PCIDevice]] = [*pairs]
        for _, device in pairs:
            if self.driver.needs_iommu:
                for_guest = self.request.owner is not None
                self.risks += vfio.find_risks(self.conn.host, device, for_guest=for_guest)
            targets += (
                (None, sibling)
                for sibling in self._siblings(device, {*wanted, *(d.name for _, d in targets)})
            )
        details = survey.read_all(self.conn.host, [device.address for _, device in targets])
        candidates = [
            self._candidate(hostdev, device, details[device.address]) for hostdev, device in targets
        ]
        allow = self.request.allow
        return [
            plan_device(
                each, self.request.owner, self.driver.name, self._listed(each.device), allow
            )
            for each in candidates
        ]

    def _siblings(self, device: PCIDevice, taken: set[str]) -> list[PCIDevice]:
        host = self.conn.host
        group = self.inventory.group(device.iommu_group)
        members = [read_pci(host.sysfs, member.address) for member in group]
        records = (self.inventory.record(member) for member in members)
        own = {record.address for record in records if record and self.request.is_own(record)}
        if self.request.owner is None:
            return []  # viability is asked when a guest gets it
        whole = PrepareFlags.WHOLE_GROUP in self.request.flags
        others = vfio.other_members(host, device.iommu_group)
        siblings = rules.group_blockers(
            device, members, taken | own | self._stubbed(members), others, whole=whole
        )
        for sibling in siblings:
            self._check_free(sibling)
        return siblings

    def _stubbed(self, members: Sequence[PCIDevice]) -> set[str]:
        """Those on a stub of a hypervisor that does without VFIO, which knows what its stubs bear."""
        if is_vfio_driver(self.driver.stubs[0]):
            return set()
        return {m.name for m in members if answers.accepts_stub(self.driver, m.kernel_driver)}

    def _listed(self, device: PCIDevice) -> Record | None:
        record = self.inventory.record_at(device)
        return record if record is not None and record.phase is Phase.INACTIVE else None

    def _candidate(
        self, hostdev: PCIHostdev | None, device: PCIDevice, details: PCIDetails
    ) -> Candidate:
        host = self.conn.host
        rules.check_type(device, details)
        rules.check_override(device, details)
        rules.check_functions(device, details, self.inventory)
        listed = self._listed(device)
        stub = self._stub(hostdev, device, details, listed)
        self._check_held(device, hostdev)
        if listed is None or listed.backend != self.driver.name:
            answers.check_device(self.driver, host, device, self._context(hostdev))
        reset = rules.reset_step(
            device,
            details,
            stub,
            required=PrepareFlags.REQUIRE_RESET in self.request.flags,
            warn=self._warn,
        )
        module = None
        if device.kernel_driver is not None:
            module = host.modules.module_of(device.kernel_driver)
        return Candidate(
            device,
            details,
            stub,
            hostdev,
            module,
            reset,
            answers.extra_steps(self.driver, host, device, self._context(hostdev)),
        )

    def _stub(
        self,
        hostdev: PCIHostdev | None,
        device: PCIDevice,
        details: PCIDetails,
        listed: Record | None,
    ) -> Stub:
        """The stub driver it goes to, by what it is and by how it is managed."""
        host = self.conn.host
        if listed is not None:
            check_same(host, listed)
        elif details.driver_override is not None:
            self._warn(
                f"{device.name} has driver_override {details.driver_override!r}, which is not hostdev's: it"
                " gets it back"
            )
        for_guest = self.request.owner is not None
        stub = stubs.choose(
            self.driver,
            host,
            device,
            listed,
            self._warn,
            self._context(hostdev),
            for_guest=for_guest,
        )
        if hostdev is not None:
            rules.check_managed(hostdev, device, on_stub=device.kernel_driver == stub.kernel_driver)
        return stub

    def _check_held(self, device: PCIDevice, hostdev: PCIHostdev | None) -> None:
        """Refuse what a process outside the ledger holds: a VFIO group opens once."""
        host = self.conn.host
        group = device.iommu_group
        records = (self.inventory.records or {}).values()
        mates = (r for r in records if r.group == group and self.request.is_own(r))
        on_vfio = is_vfio_driver(device.kernel_driver, device.is_vfio)
        asked = False
        if on_vfio and group is not None and not any(map(self._holds, mates)):
            fd = open_group(host, group, device.name)
            if fd is not None:
                close_all([fd])
                asked = True
        check_holders(self.conn, self.driver, device, self._context(hostdev), asked=asked)

    def _context(self, hostdev: PCIHostdev | None) -> Context:
        return Context.of(self.conn, self.driver, self.request.domain, hostdev)

    def _plan_usb(self, hostdev: USBHostdev, device: USBDevice) -> DevicePlan:
        check_claimed(self.conn.host, device)
        record = Record(
            "usb",
            device.port,
            Phase.PREPARING,
            self.driver.name,
            owner=self.request.owner,
            controller=device.controller,
            inode=device.inode,
            usb=device.identity,
            allowed=" ".join(sorted(hostdev.allow)),
        )
        return DevicePlan(record)
