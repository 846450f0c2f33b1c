"""HostdevState: the draft's global in-use state, a state driver over the ledger."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

from hostdev_core.bus.pci import list_pci
from hostdev_core.bus.usb import PATIENCE, see_usb
from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.inventory.drift import Drift, compare, find_drift, standing
from hostdev_core.inventory.inventory import with_record
from hostdev_core.model.address import PCIAddress
from hostdev_core.model.device import PCIDevice, USBDevice
from hostdev_core.model.record import Phase, Record
from hostdev_core.runtime import operation as operations


class StateDriver(ABC):
    """What libvirt calls a state driver (virStateDriver): state that outlives connections.

    A registry drives it: `initialize` before the first connection to a host is opened that is not
    read-only, `reload` at `Registry.reload`, `Connection.reload` and `recover`, `cleanup` at
    `Registry.close`. A plugin brings its own with the hook `hostdev_state_drivers`.
    """

    @abstractmethod
    def initialize(self) -> None:
        """Make the state ready; twice is harmless."""

    @abstractmethod
    def reload(self) -> tuple[Drift, ...]:
        """Compare the state with the world."""

    @abstractmethod
    def cleanup(self) -> None:
        """Put away what is only scaffolding; devices stay with their domains."""


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
        """Make the ledger."""
        with self._changing():
            self.host.ledger.create()

    def reload(self) -> tuple[Drift, ...]:
        """What is lent and gone, replaced, or rebound behind our back; nothing is changed."""
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
        return self._pci(lambda record: record.is_lent)

    @property
    def inactive_pci(self) -> tuple[PCIDevice, ...]:
        """The PCI devices that are detached and that nobody has."""
        return self._pci(lambda record: record.phase is Phase.INACTIVE)

    @property
    def active_usb(self) -> tuple[USBDevice, ...]:
        """The USB devices that domains have."""
        records = [record for record in self._records("usb") if record.is_lent]
        seen = {device.port: device for device in see_usb(self.host.sysfs)} if records else {}
        same = [seen[record.address] for record in records if self._is_same(record, seen)]
        present = {device.port: device for device in self.host.usb_texts.fill(same, PATIENCE)}
        return tuple(with_record(present.get(r.address, USBDevice(r.address)), r) for r in records)

    def _is_same(self, record: Record, seen: Mapping[str, USBDevice]) -> bool:
        device = seen.get(record.address)
        return standing(self.host, record, device) in {"there", "replugged"}

    def _pci(self, choose: Callable[[Record], bool]) -> tuple[PCIDevice, ...]:
        records = [record for record in self._records("pci") if choose(record)]
        present = {device.name: device for device in list_pci(self.host.sysfs)} if records else {}
        present = {
            r.address: present[r.address]
            for r in records
            if r.address in present and compare(self.host, r) == "there"
        }
        devices = (
            (r, present.get(r.address, PCIDevice(PCIAddress.parse(r.address)))) for r in records
        )
        return tuple(with_record(device, record) for record, device in devices)

    def _records(self, kind: str) -> Iterable[Record]:
        return (record for record in self.host.ledger.records() if record.kind == kind)
