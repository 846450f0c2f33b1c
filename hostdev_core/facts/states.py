"""The state of a device by its record, in a word or two: `state` in JSON. docs/cli.md lists them."""

from hostdev_core.inventory import inventory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.record import Record


def state_of(host: "Host", seen: "Inventory", record: "Record | None") -> str:
    """The state of a device: `free` without a record, `unknown` when the ledger could not be read."""
    if seen.records is None:
        return "unknown"
    return "free" if record is None else record_state(host, record)


def record_state(host: "Host", record: "Record") -> str:
    """The state of a device that has a record."""
    return inventory.record_state(record, lambda operation: _lives(host, operation))


def _lives(host: "Host", operation: str) -> bool:
    from hostdev_core.runtime.operation import is_alive  # here: most records are at rest

    return is_alive(host.state_dir, operation)
