"""The use of a device: one word with its evidence, the same in `list`, `show` and `status`.

`glance` goes by what a listing has read already; `facts/evidence.py` looks for the users.
"""

from typing import NamedTuple

from hostdev_core.facts.states import record_state
from hostdev_core.inventory.inventory import UNSETTLED
from hostdev_core.inventory.unrecorded import is_unrecorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from hostdev_core.facts.class_devices import ClassDevices
    from hostdev_core.host import Host
    from hostdev_core.inventory.inventory import Inventory
    from hostdev_core.model.device import Device, UsedBy
    from hostdev_core.model.record import Record

    Description = dict[str, Any]

WITHOUT_RECORD = ("available", "host", "foreign", "unknown")
WITH_RECORD = (
    *("lent", "sibling", "inactive", "preparing", "releasing", "waiting", "left over", "stuck"),
    *("rebound", "gone", "replaced"),
)
CODES = (*WITHOUT_RECORD, *WITH_RECORD)
_BRIDGES = ("0600", "0601", "0604")  # host, ISA and PCI bridges


class Use(NamedTuple):
    """How a device is used: `code` is one of CODES, `text` begins with it and is for people.

    `evidence` says by what that is known, the weightiest first. `whole` is whether processes, mounts and
    routes were looked for, too: without, an interface, a disk or a DRM node counts as used.
    """

    code: str
    text: str
    evidence: tuple[str, ...] = ()
    whole: bool = False


_AVAILABLE = Use("available", "available")


def describe_use(use: Use) -> "Description":
    """Describe a use: `code`, `text`, `evidence` and `whole`."""
    code, text, evidence, whole = use
    return {"code": code, "text": text, "evidence": [*evidence], "whole": whole}


def describe_owner(owner: "UsedBy | None") -> "Description | None":
    """Describe the domain that has a device."""
    return None if owner is None else owner._asdict()


def glance(
    host: "Host",
    inventory: "Inventory",
    classes: "ClassDevices",
    device: "Device",
    key: tuple[str, str],
    children: "Sequence[str]" = (),
) -> Use:
    """The use of the device of this key (its kind and name) as far as one look at the host shows it.

    `children` are the USB devices of a controller.
    """
    if inventory.records is None:
        return Use("unknown", "unknown", (inventory.unread or "",))
    record = inventory.record_of_device(key)
    if record is not None:
        use = use_of_record(host, record, _drift(host, record, device))
        again = key in inventory.replugged
        return use._replace(text=f"{use.text}, plugged in again since") if again else use
    if device.unread is not None and device.kind == "pci":
        return Use("unknown", "unknown", (device.unread,))
    if is_unrecorded(inventory, device):
        why = f"on {device.kernel_driver}, and no record says why"  # type: ignore[union-attr]
        return Use("foreign", f"foreign: on {device.kernel_driver}", (why,))  # type: ignore[union-attr]
    evidence = tuple(_belongings(classes, device, key, children))
    if evidence:
        return Use("host", "host", evidence)
    if classes.unread is not None:
        return Use("unknown", "unknown", (classes.unread,))
    return _AVAILABLE


def _belongings(
    classes: "ClassDevices", device: "Device", key: tuple[str, str], children: "Sequence[str]"
) -> "list[str]":
    """What the host has of a device by its driver, in words."""
    found = [f"network interface {name}" for name in classes.names(key, "net")]
    found += [f"disk {name}" for name in classes.names(key, "block")]
    found += [f"DRM node {name}" for name in classes.names(key, "drm")]
    found += structure(device, children)
    return found


def structure(device: "Device", children: "Sequence[str]") -> "list[str]":
    """What other devices need this one for, in words: the devices behind a bridge, USB devices."""
    if device.kind == "pci" and device.class_code[:4] in _BRIDGES:  # type: ignore[union-attr]
        return ["other devices are behind it"]
    return [f"{'PCI' if ':' in name else 'USB'} device {name}" for name in children]


def _drift(host: "Host", record: "Record", device: "Device") -> tuple[str, str] | None:
    """How the device of a record at rest differs from it; None where it does not, or cannot be asked."""
    is_resting = record.op is None and record.stuck is None and str(record.phase) != "releasing"
    if not is_resting or not host.buses[record.kind].has_steps:
        return None
    if device.kernel_driver == record.stub:  # type: ignore[union-attr]
        return None
    found = host.buses[record.kind].drift(record, device)
    return found[0] if found else None


def use_of_record(host: "Host", record: "Record", drift: tuple[str, str] | None = None) -> Use:
    """The use by a record; `drift` is what is not true of it any more, with the detail (`Drift`)."""
    state = record_state(host, record)
    owner = record.owner
    domain = f"{owner.domain} ({owner.driver})" if owner else "the inactive list"
    texts = {
        "lent": f"lent to {domain}",
        "sibling": f"sibling, taken for {domain}",
        "preparing": f"preparing for {domain}",
        "releasing": f"releasing from {domain}",
        "waiting": "waiting for its IOMMU group",
        "left over": f"left over, was for {domain}",
        "stuck": f"stuck, for {domain}",
    }
    text = texts.get(state, state)
    if drift is not None and state not in UNSETTLED:
        return Use(drift[0], f"{drift[0]}, for {domain}", (drift[1],))
    return Use(state, text, _reasons(host, record, state))


def _reasons(host: "Host", record: "Record", state: str) -> tuple[str, ...]:
    if record.stuck is not None:
        return (record.stuck,)
    if state == "left over":
        return ("the operation that worked on it was killed; `hostdev recover` clears it up",)
    if record.op is None:
        return ()
    from hostdev_core.runtime.operation import describe

    return (describe(host.state_dir, record.op),)
