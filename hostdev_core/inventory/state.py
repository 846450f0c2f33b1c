"""HostdevState: the in-use state of a host, read from the ledger; and StateDriver, its interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

from hostdev_core.bus.bus import PATIENCE, SAME
from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import Drift, find_drift
from hostdev_core.inventory.inventory import with_record
from hostdev_core.model.device import Device, PCIDevice, USBDevice, UsedBy
from hostdev_core.model.record import Phase, Record
from hostdev_core.runtime import operation as operations


class StateDriver(ABC):
    """A driver of state that outlives connections, like libvirt's virStateDriver.

    A registry drives it: `initialize` before the first connection to a host is opened that is not
    read-only, `reload` at `Registry.reload`, `Connection.reload` and `recover`, `cleanup` at
    `Registry.close`. A plugin brings its own with the hook `hostdev_state_drivers`.
    """

    @abstractmethod
    def initialize(self) -> None:
        """Make the state ready; a second call does nothing."""

    @abstractmethod
    def reload(self) -> tuple[Drift, ...]:
        """Compare the state with the host, and return the differences."""

    @abstractmethod
    def cleanup(self) -> None:
        """Remove auxiliary files; devices stay with their domains."""


class HostdevState(StateDriver):
    """Three lists of one host, queried of the ledger at each use, never cached.

    Raises NotPermittedError where the ledger may not be read. Changes are made in `changing`: a
    connection's own raises ReadOnlyError.
    """

    def __init__(
        self, host: Host, *, changing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.host = host
        self._changing = changing

    def initialize(self) -> None:
        """Create the ledger, if there is none."""
        with self._changing():
            self.host.ledger.create()

    def reload(self) -> tuple[Drift, ...]:
        """Find lent and detached devices that are gone, replaced or rebound; nothing is changed."""
        return tuple(find_drift(self.host))

    def cleanup(self) -> None:
        """Remove the lock files of operations that are dead and left nothing."""
        with self._changing():
            if any(map(self._may_be_dead, operations.list_ids(self.host.state_dir))):
                busy = {record.op for record in self.host.ledger.records()}
                operations.forget_dead(self.host.state_dir, but=busy)

    def _may_be_dead(self, operation: str) -> bool:
        try:
            return not operations.is_alive(self.host.state_dir, operation)
        except StateError:
            return True

    @property
    def active_pci(self) -> tuple[PCIDevice, ...]:
        """The PCI devices that domains have."""
        return cast("tuple[PCIDevice, ...]", self._list("pci", lambda record: record.is_lent))

    @property
    def inactive_pci(self) -> tuple[PCIDevice, ...]:
        """The PCI devices on the inactive list: detached, and lent to no domain."""
        found = self._list("pci", lambda record: record.phase is Phase.INACTIVE)
        return cast("tuple[PCIDevice, ...]", found)

    @property
    def active_usb(self) -> tuple[USBDevice, ...]:
        """The USB devices that domains have."""
        return cast("tuple[USBDevice, ...]", self._list("usb", lambda record: record.is_lent))

    def active_of(self, kind: str, owner: UsedBy) -> tuple[Device, ...]:
        """The devices of a kind that one domain has; what others have is not looked at."""
        found = self.host.ledger.read(lambda records: records.of_domain(owner.domain)) or ()
        records = [
            record
            for record in found
            if record.kind == kind
            and record.is_lent
            and record.owner is not None
            and owner.is_same_owner(record.owner)
        ]
        read = self.host.buses[kind].read
        seen = [(record.address, read(record.address)) for record in records]
        return self._with(
            kind, records, {name: device for name, device in seen if device is not None}
        )

    def _list(self, kind: str, choose: Callable[[Record], bool]) -> tuple[Device, ...]:
        """The devices of the records that `choose` accepts."""
        records = [r for r in self.host.ledger.records() if r.kind == kind and choose(r)]
        return self._with(kind, records, self.host.buses[kind].devices() if records else {})

    def _with(
        self, kind: str, records: Sequence[Record], seen: Mapping[str, Device]
    ) -> tuple[Device, ...]:
        """The devices of records, as they were `seen` now; one that is gone has its name alone."""
        bus = self.host.buses[kind]
        same = {
            record.address: seen[record.address]
            for record in records
            if bus.identify(record, seen.get(record.address)) in SAME and record.address in seen
        }
        present = bus.describe(same, PATIENCE)
        return tuple(
            with_record(bus, present.get(r.address) or bus.absent(r.address), r) for r in records
        )
