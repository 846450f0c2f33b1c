"""The results of lending devices and of giving them back."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, cast

import attrs

from hostdev_core.errors import HostdevError, ReattachError, StateError
from hostdev_core.model.device import Device
from hostdev_core.model.domain import Hostdev
from hostdev_core.model.record import Record


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


Errors = dict[str, Exception]
PLUGIN = "plugin "  # begins the key of an error that keeps no device away


@attrs.frozen
class Outcome:
    """The records whose devices are restored, and an error, by address, for each that is not.

    `freed` are other devices that traces of those which are gone had taken: the address of each and
    the driver that it is on now. Errors of plugins are among `errors`, by `PLUGIN` and a number.
    """

    restored: tuple[Record, ...]
    errors: Mapping[str, Exception]
    interrupted: BaseException | None = None
    freed: tuple[tuple[str, str | None], ...] = ()

    def raised(self) -> tuple[str, ...]:
        """Return the addresses that are restored; ReattachError, with the errors, when there are any.

        An interrupt is raised again instead.
        """
        if self.interrupted is not None:
            raise self.interrupted
        restored = tuple(record.address for record in self.restored)
        if self.errors:
            left = sorted(key for key in self.errors if not key.startswith(PLUGIN))
            said = (
                f"not given back: {', '.join(left)}" if left else "given back, but a plugin failed"
            )
            error = ReattachError(said, [*one_each(self.errors)])
            error.returned = restored
            raise error
        return restored


def one_each(errors: Mapping[str, Exception]) -> Iterator[Exception]:
    """Yield one error object for each address, with `device` set to that address.

    Devices that share a lane may share one error; it is copied for each but the first.
    """
    given: set[int] = set()
    for key, error in errors.items():
        if key.startswith(PLUGIN) or getattr(error, "device", None) == key:
            mine = error
        elif id(error) in given or _is_anothers(error, errors):
            mine = _copy_for(key, error)
        else:
            mine = _with_device(error, key)
        given.add(id(error))
        yield mine


def _is_anothers(error: Exception, errors: Mapping[str, Exception]) -> bool:
    """Whether an error belongs to another device: it names one, or is the error of several."""
    device: object = getattr(error, "device", None)
    return device is not None or sum(other is error for other in errors.values()) > 1


def _copy_for(address: str, error: Exception) -> Exception:
    """Copy an error for this device: of the same type if that is hostdev's own, else a StateError."""
    copy: Any
    if isinstance(error, HostdevError):
        restore, facts = cast("tuple[Any, Any]", error.__reduce__())
        copy = restore(*facts)
    else:
        copy = StateError(f"{type(error).__name__}: {error}")
    text = str(copy.args[0]) if copy.args else ""
    if address not in text:
        copy.args = (f"{address}: {text}", *copy.args[1:])
    copy.__cause__ = error.__cause__ or (None if isinstance(error, HostdevError) else error)
    return _with_device(copy, address)


def _with_device(error: Any, address: str) -> Exception:
    error.device = address
    return error  # type: ignore[no-any-return]
