"""The error for a device that is not there, with the one that was probably meant."""

from hostdev_core.errors import DeviceNotFoundError
from hostdev_core.model.spelling import one_letter_off

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostdev_core.model.device import USBDevice


def no_such_device(kind: str, name: str, known: "Iterable[str]" = ()) -> DeviceNotFoundError:
    """Build the error for a device that was asked for by `name`; `known` are those that are there."""
    near = one_letter_off(name, known)
    meant = f"did you mean {near}? " if near else ""
    return DeviceNotFoundError(
        f"there is no {kind} {name}; {meant}`hostdev list` shows those there are",
        device=name,
        rule="unknown-device",
    )


def usb_names(devices: "Iterable[USBDevice]") -> "Iterator[str]":
    """The names by which a person may mean one of these: its port, its number, its ids."""
    return (name for each in devices for name in (each.port, each.number, each.ids))
