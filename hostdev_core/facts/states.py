"""The state of a device by its record, in a word or two: `state` in JSON. docs/cli.md lists them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.record import Record

# States that need `hostdev recover` or an administrator.
UNSETTLED = frozenset({"stuck", "left over"})


def state_of(host: "Host", inventory: "Inventory", record: "Record | None") -> str:
    """The state of a device: `free` without a record, `unknown` when the ledger could not be read."""
    if inventory.records is None:
        return "unknown"
    return "free" if record is None else record_state(host, record)


def record_state(host: "Host", record: "Record") -> str:
    """The state of a device that has a record."""
    phase = str(record.phase)
    if record.stuck is not None:
        return "stuck"
    if record.op is not None:
        return phase if is_at_work(host, record) else "left over"
    if phase == "active":  # a sibling was taken with its IOMMU group, and not handed to the guest
        return "lent" if record.handed else "sibling"
    # Releasing without an operation: it is free, and waits on its stub for the rest of its group.
    return "waiting" if phase == "releasing" else phase


def is_at_work(host: "Host", record: "Record") -> bool:
    """Tell whether a living operation is at work on a record."""
    from hostdev_core.runtime.operation import is_alive

    return record.op is not None and is_alive(host.state_dir, record.op)
