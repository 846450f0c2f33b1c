"""Plan a device that the claim alone lends: no step is written for it."""

from collections.abc import Sequence
from typing import Any

from hostdev_core.bus.unknown import no_such_device
from hostdev_core.inventory.holders import check_claimed
from hostdev_core.inventory.inventory import Key
from hostdev_core.model.device import Device
from hostdev_core.model.plan import DevicePlan
from hostdev_core.model.record import Phase, Record
from hostdev_core.planning.request import Decision, Question, State


class ClaimPlanner:
    """Plans for the devices of a bus without steps: its hypervisor takes such a device by its node."""

    def resolve(self, question: Question, hostdev: Any) -> Device | None:
        """Find the device that a hostdev means; DeviceNotFoundError when there is none."""
        bus = question.host.buses[hostdev.kind]
        device = bus.find(hostdev, question.inventory.by_kind[hostdev.kind])
        if device is None:
            bus.check_seen()
            known = question.inventory.by_kind[hostdev.kind]
            raise no_such_device(f"{hostdev.kind.upper()} device", str(hostdev), known)
        return device

    def read(self, question: Question, hostdev: Any, device: Any) -> Device:
        """Return the device as it is: nothing more is recorded of one than the look has read."""
        del question, hostdev
        known: Device = device
        return known

    def plan(self, question: Question, pairs: Sequence[Any]) -> list[DevicePlan]:
        """Plan these devices; DeviceInUseError for one that a process has claimed."""
        return [self._plan(question, *pair) for pair in pairs]

    def read_again(self, decision: Decision, keys: Sequence[Key]) -> dict[Key, State]:
        """Read devices that are claimed, as they are now; DeviceInUseError for one that a process has."""
        host, found = decision.question.host, dict[Key, State]()
        for kind, name in keys:
            device = host.buses[kind].read(name)
            if device is not None:
                check_claimed(host, device)
            found[kind, name] = device
        return found

    def _plan(self, question: Question, hostdev: Any, device: Device) -> DevicePlan:
        check_claimed(question.host, device)
        key = device.kind, device.name
        question.states[key] = question.inventory.at(key)
        record = Record(
            device.kind,
            device.name,
            Phase.PREPARING,
            question.lender.backend.name,
            owner=question.request.owner,
            allowed=" ".join(sorted(hostdev.allow)),
            **question.host.buses[device.kind].recorded(device),
        )
        return DevicePlan(record)
