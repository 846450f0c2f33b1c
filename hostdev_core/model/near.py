"""Near: which records may have to do with some devices, told by facts that stay as long as a device does."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hostdev_core.model.record import Record


class Near(NamedTuple):
    """The names of some devices, and of those that go with them, and the numbers of their IOMMU groups.

    `names` are their own: records of their virtual functions and of USB devices on them are near, too.
    `related` are other members of their groups, their PFs and their USB controllers.
    """

    names: frozenset[str] = frozenset()
    related: frozenset[str] = frozenset()
    groups: frozenset[int] = frozenset()

    def plus(self, other: "Near") -> "Near":
        """Add what is near to other devices."""
        return Near(*(mine | its for mine, its in zip(self, other, strict=True)))  # type: ignore[arg-type]


def near_to(records: "Iterable[Record]") -> Near:
    """What is near to the devices of these records, as these know their places."""
    known = [*records]
    return Near(
        frozenset([record.address for record in known]),
        frozenset([n for r in known for n in (r.physfn, r.controller) if n is not None]),
        frozenset([record.group for record in known if record.group is not None]),
    )
