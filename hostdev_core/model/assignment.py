"""What was lent, and what was given back."""

from collections.abc import Iterable
from itertools import chain

import attrs

from hostdev_core.model.device import Device
from hostdev_core.model.domain import Hostdev


@attrs.frozen
class Assignment:
    """One hostdev of a domain and the device it got.

    `node` is the device node its hypervisor opens (None where it needs none), `arguments` are words
    for the hypervisor, in the backend's own form. `missing` says what was not found of a hostdev
    whose startup policy allows that; `device` is None then.
    """

    hostdev: Hostdev
    device: Device | None
    node: str | None = None
    arguments: tuple[str, ...] = ()
    missing: str | None = None


class Returned(tuple[str, ...]):
    """The addresses that were given back, as a tuple, and what became of the others.

    `waiting` left the domain and stay on their stub until the rest of their IOMMU group comes;
    `not_held` was asked for and is not the domain's, as it was asked for; `gone` are those of the
    given back that are not there any more: their records ended, and nothing else. At the addresses
    of those that are `replaced`, too, are others, which were left alone. But those that are `freed`,
    each with the driver that it is on now: what was left of the device that is gone had taken them.
    """

    waiting: tuple[str, ...]
    not_held: tuple[str, ...]
    gone: tuple[str, ...]
    replaced: tuple[str, ...]
    freed: tuple[tuple[str, str | None], ...]

    def __new__(
        cls,
        addresses: Iterable[str] = (),
        *,
        waiting: Iterable[str] = (),
        not_held: Iterable[str] = (),
        gone: Iterable[str] = (),
        replaced: Iterable[str] = (),
        freed: Iterable[tuple[str, str | None]] = (),
    ) -> "Returned":
        """All are empty where nobody tells."""
        self = super().__new__(cls, addresses)
        self.waiting, self.not_held, self.gone = tuple(waiting), tuple(not_held), tuple(gone)
        self.replaced, self.freed = tuple(replaced), tuple(freed)
        return self

    @classmethod
    def joined(cls, parts: "Iterable[Returned]") -> "Returned":
        """What several calls gave back."""
        parts = tuple(parts)
        return cls(
            chain(*parts),
            waiting=chain.from_iterable(part.waiting for part in parts),
            not_held=chain.from_iterable(part.not_held for part in parts),
            gone=chain.from_iterable(part.gone for part in parts),
            replaced=chain.from_iterable(part.replaced for part in parts),
            freed=chain.from_iterable(part.freed for part in parts),
        )

    @classmethod
    def of(cls, answer: tuple[str, ...]) -> "Returned":
        """What any driver answers."""
        return answer if isinstance(answer, cls) else cls(answer)
