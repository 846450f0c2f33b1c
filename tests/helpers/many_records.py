"""Records of many devices that other domains have."""

from collections.abc import Iterator

from hostdev_core import UsedBy
from hostdev_core.ledger.store import Ledger
from hostdev_core.model.record import Phase, Record

OTHER = UsedBy("other", "qemu", "qemu:///system")


def others(number: int) -> Iterator[Record]:
    """What another domain has, each device in an IOMMU group of its own, above those of small machines."""
    for i in range(number):
        address = f"{0x10000 + (i >> 8):x}:{i & 0xFF:02x}:00.0"
        yield Record(
            "pci", address, Phase.ACTIVE, "qemu", owner=OTHER, confirmed=True, group=5000 + i
        )


def fill(ledger: Ledger, number: int) -> None:
    """Put these into a ledger, in one transaction."""
    with ledger.transaction() as transaction:
        for record in others(number):
            transaction.insert(record)
