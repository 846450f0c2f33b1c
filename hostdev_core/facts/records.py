"""Records as dicts with the keys of `--json`, and in words. The keys are in docs/cli.md, and stay.

Imports of whole rooms stand in the functions that need them: `hostdev list` loads no more than it shows.
"""

from hostdev_core.facts.states import record_state
from hostdev_core.facts.use import describe_owner, describe_use, use_of_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.facts.use import Description
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.record import Record


def describe_record(
    host: "Host", record: "Record", drift: tuple[str, str] | None = None
) -> "Description":
    """Describe a record: all that the ledger knows of a device; `drift` as for `use_of_record`."""
    return {
        "kind": record.kind,
        "address": record.address,
        "state": record_state(host, record),
        "use": describe_use(use_of_record(host, record, drift)),
        "used_by": describe_owner(record.owner),
        "stuck": record.stuck,
        "phase": str(record.phase),
        "driver": record.backend,
        "stub": record.stub,
        "iommu_group": record.group,
        "handed": record.handed,
        "returns": "inactive list" if record.rests_on_list else "as found",
        "found": {
            "kernel_driver": record.found.kernel_driver,
            "driver_override": record.found.driver_override,
            "power_control": record.found.power_control,
        },
        "allowed": record.allowed.split(),
        "operation": operation_of(host, record),
        "since": record.since,
    }


def describe_absent(host: "Host", inventory: "Inventory", record: "Record") -> "Description":
    """Describe the record of a device that is not there, and tell whether another is at its address."""
    where = _where(host, inventory, record)
    code = "unknown" if where == "unseen" else where
    return {**describe_record(host, record, (code, _ABSENT[where])), "where": where}


_ABSENT = {
    "replaced": "another device is at its address",
    "gone": "it is not there (any more)",
    "unseen": "it cannot be seen from here, and may be there",
}


def _where(host: "Host", inventory: "Inventory", record: "Record") -> str:
    """Tell `replaced`, `gone`, or `unseen`: a namespace or a mount may hide a device that is there."""
    if record.key in inventory.others:  # another device is at its address
        return "replaced"
    from hostdev_core.errors import KernelError
    from hostdev_core.inventory.drift import check_hidden

    try:
        check_hidden(host, record)
    except KernelError:
        return "unseen"
    return "gone"


def absent_text(host: "Host", inventory: "Inventory", record: "Record") -> str:
    """Render the record of a device that is not there for people, on one line."""
    whose = f", which is for {record.owner}," if record.owner else ", which was detached,"
    where = _where(host, inventory, record)
    if where == "unseen":
        return f"{record.address}{whose} cannot be seen from here, and may be there"
    if where == "gone":
        return f"{record.address}{whose} is not there (any more)"
    return f"{record.address}{whose} is not there any more: another device is at its address"


def operation_of(host: "Host", record: "Record") -> str | None:
    """Describe the operation that is, or was, at work on a record; None without one."""
    if record.op is None:
        return None
    from hostdev_core.runtime.operation import describe

    return describe(host.state_dir, record.op)
