"""The way of a device that no record knows, from a stub to the driver that the host has for it.

It is recorded before anything is done, as if it had been found on that driver, and then goes the one
way back: who is killed in the middle leaves a record that the next recovery finishes.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs

from hostdev_core import answers, rules, survey
from hostdev_core.address import PCIAddress
from hostdev_core.assignment import Returned
from hostdev_core.errors import KernelError, ReattachError, StateError
from hostdev_core.guard import check_holders, close_all, open_group
from hostdev_core.host import Host
from hostdev_core.inventory import look
from hostdev_core.operation import Operation
from hostdev_core.pci import PCIDetails, PCIDevice, is_vfio_driver, read_pci
from hostdev_core.reattach import Reattach
from hostdev_core.record import Found, Phase, Record
from hostdev_core.recovery import past_left_overs
from hostdev_core.request import in_the_way
from hostdev_core.steps import PROBE
from hostdev_core.store import Transaction, now
from hostdev_core.sysfs import PCI_DRIVERS
from hostdev_core.unrecorded import is_stub

if TYPE_CHECKING:
    from hostdev_core.connection import Connection
    from hostdev_core.local_driver import LocalHostdevDriver

_STUB_MODULES = frozenset({"vfio_pci", "pci_stub", "xen_pciback"})


class _NoStubError(StateError):
    """The device is on no stub driver."""


def send_to_host(driver: "LocalHostdevDriver", conn: "Connection", address: PCIAddress) -> Returned:
    """Give a device that no record knows to the driver that its modalias names; its address.

    Refused while somebody has it, or on a driver that is no stub. Stuck, with the reason, when no
    driver takes it.
    """
    conn.host.check_permitted()
    conn.host.ledger.create()
    first = read_pci(conn.host.sysfs, address)
    try:
        return past_left_overs(conn, lambda: _send(driver, conn, address))
    except _NoStubError:
        now = read_pci(conn.host.sysfs, address)
        if is_stub(first.kernel_driver) and now.kernel_driver not in {None, first.kernel_driver}:
            return Returned((first.name,))  # what a dead operation or a gone device had left ended
        raise


def _send(driver: "LocalHostdevDriver", conn: "Connection", address: PCIAddress) -> Returned:
    host = conn.host
    device = read_pci(host.sysfs, address)
    rules.check_type(device)
    holds = partial(look(host).holds, host)
    known = {record.key: record for record in host.ledger.records()}
    wanted = Record("pci", device.name, Phase.RELEASING, driver.name, confirmed=True)
    wanted = wanted._replace(group=device.iommu_group, physfn=device.physfn)
    if other := rules.find_conflict(wanted, known, holds):
        raise in_the_way(host.state_dir, wanted, other, known.values(), holds)
    details = survey.read_all(host, [address])[address]
    stub = _stub_of(driver, device, details)
    _check_held(driver, host, device)
    target, module = _find_target(host, device)
    record = wanted._replace(
        stub=stub,
        found=Found(target, module=module),
        modalias=device.modalias,
        revision=details.revision,
        inode=details.inode,
        allowed="" if target else PROBE,
    )
    sending = _Sending(conn, f"send {device.name} to the host", record=record, holds=holds)
    try:
        return sending.run()
    except ReattachError:
        _drop_untouched(host, record)
        raise


def _stub_of(driver: "LocalHostdevDriver", device: PCIDevice, details: PCIDetails) -> str | None:
    """The stub that it is on, or that its override names; StateError for what is nobody's leftover."""
    current, override = device.kernel_driver, details.driver_override
    stub = current or override
    if stub is None:
        return None
    if device.gives_vfio or not (is_stub(stub) or answers.accepts_stub(driver, stub)):
        where = f"on {current}" if current else f"driverless, with driver_override {override}"
        raise _NoStubError(
            f"{device.name} is {where}, which is no stub driver: nothing to send home, and nothing was"
            " changed"
        )
    if override not in {None, stub}:
        raise StateError(
            f"{device.name} is on {current}, and its driver_override is {override!r}: somebody else set"
            f" that; clear it first: echo > /sys/bus/pci/devices/{device.name}/driver_override"
        )
    return stub


def _check_held(driver: "LocalHostdevDriver", host: Host, device: PCIDevice) -> None:
    group, guard = device.iommu_group, list[int]()
    if group is not None and is_vfio_driver(device.kernel_driver, device.is_vfio):
        fd = open_group(host, group, device.name)
        guard += [] if fd is None else [fd]
    close_all(guard)
    check_holders(host, driver, device, asked=bool(guard))


def _find_target(host: Host, device: PCIDevice) -> tuple[str | None, str | None]:
    """The one driver of the module that is loaded for it; else none, and the module to load.

    Whose driver is not known by name is left to the kernel's own choice.
    """
    names = [n for n in host.modules.candidates(device.modalias) if n not in _STUB_MODULES]
    names.sort(key=lambda name: not host.modules.is_loaded(name))
    for name in names:
        drivers = host.modules.drivers(name)
        if len(drivers) == 1 and host.sysfs.exists(f"{PCI_DRIVERS}/{drivers[0]}"):
            return drivers[0], name
        if drivers or not _is_blacklisted(host, name):
            return None, name
    return None, None


def _is_blacklisted(host: Host, module: str) -> bool:
    try:
        return host.modules.blacklisted(module) is not None
    except KernelError:
        return True


def _drop_untouched(host: Host, record: Record) -> None:
    """Nothing was done about it: somebody got it at the last moment, and no record is left of that."""
    with host.ledger.transaction() as transaction:
        for other in transaction.records():
            rests = other.phase is Phase.INACTIVE and other.op is None and other.stuck is None
            if rests and other.key == record.key and other.inode == record.inode:
                transaction.delete(other)


@attrs.define(eq=False)
class _Sending(Reattach):
    """A reattach of a device by the record that is made for it in the claim."""

    record: Record = attrs.field(kw_only=True)
    holds: rules.Holds = attrs.field(kw_only=True)

    def _mine(self, records: Sequence[Record]) -> list[Record]:
        return [self.record]

    def _claim(self, transaction: Transaction, operation: Operation) -> list[Record]:
        records = {record.key: record for record in transaction.records()}
        if other := rules.find_conflict(self.record, records, self.holds):
            state_dir = self.conn.host.state_dir
            raise in_the_way(state_dir, self.record, other, records.values(), self.holds)
        taken = self.record._replace(op=operation.id, since=now())
        self._taken[taken] = None
        transaction.insert(taken)
        return [taken]
