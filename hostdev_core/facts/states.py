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
    return inventory.record_state(record, lambda _: is_at_work(host, record))


def is_at_work(host: "Host", record: "Record") -> bool:
    """Tell whether a living operation is at work on a record."""
    from hostdev_core.runtime.operation import is_alive

    return record.op is not None and is_alive(host.state_dir, record.op)
