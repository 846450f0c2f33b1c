"""The results of lending devices and of giving them back."""

from collections.abc import Iterable
from itertools import chain

import attrs

from hostdev_core.model.device import Device
from hostdev_core.model.domain import Hostdev


@attrs.frozen
class Assignment:
    """One hostdev of a domain and the device it got.

    `node` is the device node its hypervisor opens (None where it needs none), `arguments` are words
    for the hypervisor, in the backend's own form. For a hostdev whose startup policy lets its device be
    missing, `missing` says so, and `device` is None.
    """

    hostdev: Hostdev
    device: Device | None
    node: str | None = None
    arguments: tuple[str, ...] = ()
    missing: str | None = None


class Returned(tuple[str, ...]):
    """The addresses that were given back, as a tuple; further addresses by their state.

    `waiting` have left the domain, and stay on their stub until the rest of their IOMMU group is given
    back. `not_held` were asked for and are not the domain's, in the words of the call. `gone` are those
    of the given back whose devices are not there any more: only their records ended. Of these,
    `replaced` are those at whose addresses other devices are now, which were not touched. `freed` are
    such other devices that were touched, each with the driver that it is on now: traces of the gone
    device had taken them.
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
        """Make it of these addresses; all default to none."""
        self = super().__new__(cls, addresses)
        self.waiting, self.not_held, self.gone = tuple(waiting), tuple(not_held), tuple(gone)
        self.replaced, self.freed = tuple(replaced), tuple(freed)
        return self

    @classmethod
    def joined(cls, parts: "Iterable[Returned]") -> "Returned":
        """Join the results of several calls."""
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
        """Take the answer of any driver, which may be a plain tuple of addresses."""
        return answer if isinstance(answer, cls) else cls(answer)
