"""How a way home ended: what arrived, and an error for each device that did not."""

from collections.abc import Mapping

import attrs

from hostdev_core.errors import ReattachError
from hostdev_core.record import Record

Errors = dict[str, Exception]
PLUGIN = "plugin "  # begins the key of an error that keeps no device away


@attrs.frozen
class Outcome:
    """How the way back ended: what arrived, and an error for each that did not, by address.

    What plugins raised meanwhile is there, too, by `PLUGIN` and a number.
    """

    home: tuple[Record, ...]
    errors: Mapping[str, Exception]
    interrupted: BaseException | None = None

    def raised(self) -> tuple[str, ...]:
        """The addresses that are home; ReattachError when not all are."""
        if self.interrupted is not None:
            raise self.interrupted
        if self.errors:
            unique = {id(error): error for error in self.errors.values()}
            left = sorted(key for key in self.errors if not key.startswith(PLUGIN))
            said = (
                f"not given back: {', '.join(left)}" if left else "given back, but a plugin failed"
            )
            raise ReattachError(said, [*unique.values()])
        return tuple(record.address for record in self.home)
