"""The buses of a host."""

from hostdev_core.bus.bus import Bus
from hostdev_core.bus.pci import PCI
from hostdev_core.bus.usb import USB
from hostdev_core.errors import InvalidAddressError
from hostdev_core.kernel.sysfs import Sysfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.model.record import Record


class Buses(dict[str, Bus]):
    """The buses by the kind that their devices have in the ledger, in the order of a listing."""

    def __init__(self, sysfs: Sysfs) -> None:
        super().__init__()
        self.pci, self.usb = PCI(sysfs), USB(sysfs)
        for bus in (self.pci, self.usb):
            self.add(bus)

    def add(self, bus: Bus) -> None:
        """Add one more; a host that has it says so where it makes its buses."""
        self[bus.kind] = bus

    def is_name(self, kind: str, name: str) -> bool:
        """Whether a ledger may name a device so: of one of these buses, in the bus's one form."""
        try:
            return kind in self and self[kind].is_name(name)
        except InvalidAddressError:
            return False

    def is_bound(self, record: "Record") -> bool:
        """Whether a resting record's device is where the record put it, or cannot be seen."""
        return record.kind in self and self[record.kind].is_bound(record)
