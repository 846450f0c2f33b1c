"""Give a device that no record knows from its stub to the driver that the host has for it.

A record is made first, as if the device had been found on that driver; then the device is restored like
any other. A call that is killed in the middle leaves a record that the next recovery finishes.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import attrs

from hostdev_core.backend import CheckedBackend, Lender
from hostdev_core.bus.pci import read_pci
from hostdev_core.errors import KernelError, ReattachError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import look_near
from hostdev_core.inventory.unrecorded import UNHEARD, is_stub
from hostdev_core.inventory.vfio import check_holders, close_all, open_group
from hostdev_core.kernel.sysfs import PCI_DRIVERS
from hostdev_core.ledger.store import now
from hostdev_core.ledger.transaction import Transaction
from hostdev_core.lending.reattach import Reattach
from hostdev_core.lending.recovery import past_unfinished
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.assignment import Returned
from hostdev_core.model.device import PCIDetails, PCIDevice, is_vfio_driver
from hostdev_core.model.domain import PCIHostdev
from hostdev_core.model.near import near_to
from hostdev_core.model.plan import BackendStep, steps_to_json
from hostdev_core.model.record import Found, Phase, Record
from hostdev_core.planning.conflicts import OwnsPlace, check_free
from hostdev_core.planning.lookup import read_all
from hostdev_core.planning.pci_rules import check_type
from hostdev_core.planning.steps import PROBE
from hostdev_core.runtime.operation import Operation

# Never the host's own driver for a device, also where they are among its candidates.
_STUB_MODULES = frozenset({"vfio_pci", "pci_stub", "xen_pciback"})


class _NoStubError(StateError):
    """The device is on no stub driver."""


def send_to_host(lender: Lender, address: PCIAddress) -> Returned:
    """Give a device that no record knows to the driver that its modalias names; returns its address.

    DeviceInUseError while it is lent or held; StateError when it is on no stub. ReattachError when no
    driver takes it: the device is stuck then, with the reason.
    """
    lender.host.check_permitted()
    lender.host.ledger.create()
    begun: list[PCIAddress] = []

    def send() -> Returned:
        begun.append(address)
        return _send(lender, address)

    try:
        return past_unfinished(lender, send)
    except _NoStubError:
        now = read_pci(lender.host.sysfs, address)
        if len(begun) > 1 and now.kernel_driver is not None and not is_stub(now.kernel_driver):
            # The first attempt recovered an unfinished record, which gave the device to the host.
            return Returned((now.name,))
        raise


def _send(lender: Lender, address: PCIAddress) -> Returned:
    """Check the device, make the record that it is restored by, and restore it."""
    host = lender.host
    device = read_pci(host.sysfs, address)
    check_type(device)
    inventory = look_near(host, [PCIHostdev(address=device.name)])
    owns_place, known = partial(inventory.owns_place, host), inventory.records or {}
    wanted = Record("pci", device.name, Phase.RELEASING, lender.backend.name, confirmed=True)
    wanted = wanted._replace(group=device.iommu_group, physfn=device.physfn)
    check_free(host.state_dir, wanted, known, owns_place)
    details = read_all(host, [address])[address]
    left = _look_for(lender, device, details)
    _check_held(left.keeper, device)
    record = wanted._replace(
        backend=left.keeper.name,
        stub=left.stub,
        found=left.found,
        steps=steps_to_json(left.steps),
        modalias=device.modalias,
        revision=details.revision,
        inode=details.inode,
        allowed="" if left.found.kernel_driver else PROBE,
    )
    sending = _Sending(
        lender, f"send {device.name} to the host", record=record, owns_place=owns_place
    )
    try:
        return sending.run()
    except ReattachError:
        _drop_untouched(host, record)
        raise


class _Left(NamedTuple):
    """How a device is given to the host: by which backend, from which stub, where to, and what is undone.

    A device on a host driver, with traces of a backend, stays there: that driver counts as its stub.
    """

    keeper: CheckedBackend
    stub: str | None
    found: Found
    steps: tuple[BackendStep, ...]


def _look_for(lender: Lender, device: PCIDevice, details: PCIDetails) -> _Left:
    """Find the backend, the stub, the target and the steps to undo of a device.

    StateError for a device that is on no stub, and has no traces of a backend.
    """
    host, current, override = lender.host, device.kernel_driver, details.driver_override
    backends = _backends(lender)
    stub = current or override
    if stub is None or (not device.gives_vfio and _is_kept(backends, stub)):
        keeper, steps = _keeper_on(backends, device, stub)
        former = keeper.found_on(device) if override is not None else None
        _check_override(device, override, {None, stub, former})
        return _Left(keeper, stub, _find_target(host, device, former), steps)
    for keeper in backends if not device.gives_vfio else ():
        steps = keeper.leftover_steps(device)
        if steps and current is not None:
            module = host.modules.module_of(current)
            return _Left(keeper, current, Found(current, override, module=module), steps)
        if steps and keeper.found_on(device) == override:
            return _Left(keeper, None, _find_target(host, device, override), steps)
    where = f"on {current}" if current else f"driverless, with driver_override {override}"
    raise _NoStubError(
        f"{device.name} is {where}, which is no stub driver: nothing to send home, and nothing was"
        " changed"
    )


def _backends(lender: Lender) -> list[CheckedBackend]:
    """The backend of this call first, which no plugin need have registered; then the loaded ones."""
    names = (name for name in lender.backend_names if name != lender.backend.name)
    others = (lender.find_backend(name) for name in names)
    return [lender.backend, *(backend for backend in others if backend is not None)]


def _is_kept(backends: Sequence[CheckedBackend], stub: str) -> bool:
    """Whether a driver is a stub: by its name, or because a backend takes it for one."""
    return (
        is_stub(stub)
        or backends[0].accepts_stub(stub)
        or any(stub in backend.stubs for backend in backends)
    )


def _keeper_on(
    backends: Sequence[CheckedBackend], device: PCIDevice, stub: str | None
) -> tuple[CheckedBackend, tuple[BackendStep, ...]]:
    """Find the backend that can tell who has the device, and the steps that it left to undo.

    The backend of the stub that the device is on; for a device on no driver, the first that has left
    steps. Otherwise that of this call. StateError for a stub whose backend alone could tell, and is not
    loaded.
    """
    if stub is None:
        for backend in backends:
            if steps := backend.leftover_steps(device):
                return backend, steps
        return backends[0], ()
    keepers = [each for each in backends if stub in each.stubs]
    if backends[0].accepts_stub(stub):
        keepers.insert(0, backends[0])
    if not keepers and stub in UNHEARD:
        raise StateError(
            f"{device.name} is on {stub}, and no driver that is loaded can tell whether a guest has it;"
            " enable the one that lends from there, then try again"
        )
    keeper = keepers[0] if keepers else backends[0]
    return keeper, keeper.leftover_steps(device)


def _check_override(device: PCIDevice, override: str | None, known: Collection[str | None]) -> None:
    """Raise StateError for a driver_override that neither hostdev nor a backend set."""
    if override not in known:
        raise StateError(
            f"{device.name} is on {device.kernel_driver}, and its driver_override is {override!r}:"
            f" somebody else set that; clear it first: echo >"
            f" /sys/bus/pci/devices/{device.name}/driver_override"
        )


def _check_held(keeper: CheckedBackend, device: PCIDevice) -> None:
    """Raise DeviceInUseError for a device that a process or a guest has."""
    host, group, guard = keeper.host, device.iommu_group, list[int]()
    if group is not None and is_vfio_driver(device.kernel_driver, device.is_vfio):
        fd = open_group(host, group, device.name)
        guard += [] if fd is None else [fd]
    # This was only a question: the restore holds the group itself.
    close_all(guard)
    check_holders(keeper, device, asked=bool(guard))


def _find_target(host: Host, device: PCIDevice, former: str | None) -> Found:
    """Find the driver to give a device to: its former one if known and there, else the host's own for it.

    A target without a driver leaves the choice to the kernel.
    """
    if former and not is_stub(former) and host.sysfs.exists(f"{PCI_DRIVERS}/{former}"):
        return Found(former, module=host.modules.module_of(former))
    driver, module = _find_driver(host, device)
    return Found(driver, module=module)


def _find_driver(host: Host, device: PCIDevice) -> tuple[str | None, str | None]:
    """Find the driver and the module for a device by its modalias, loaded modules first.

    No driver when its name is not known before the module is loaded, or the module has several; no
    module, either, when all are blacklisted.
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
    except KernelError:  # load no module that may be blacklisted
        return True


def _drop_untouched(host: Host, record: Record) -> None:
    """Delete the record of a device that came into use at the last moment, and was not touched."""
    with host.ledger.transaction() as transaction:
        for other in transaction.near(near_to([record])).values():
            rests = other.phase is Phase.INACTIVE and other.op is None and other.stuck is None
            if rests and other.key == record.key and other.inode == record.inode:
                transaction.delete(other)


@attrs.define(eq=False)
class _Sending(Reattach):
    """A reattach of one device, by a record that the claim inserts for it."""

    record: Record = attrs.field(kw_only=True)
    owns_place: OwnsPlace = attrs.field(kw_only=True)

    def _known(self, records: Transaction) -> list[Record]:
        return [self.record]

    def _mine(self, records: Sequence[Record]) -> list[Record]:
        return [self.record]

    def _claim(self, transaction: Transaction, operation: Operation) -> list[Record]:
        records = transaction.near(near_to([self.record]))
        check_free(self.caller.host.state_dir, self.record, records, self.owns_place)
        taken = self.record._replace(op=operation.id, since=now())
        self._taken[taken] = None
        transaction.insert(taken)
        return [taken]
