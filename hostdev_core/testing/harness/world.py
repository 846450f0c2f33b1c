"""The world that a promise is about: the kernel's side, the records, the lock files."""

from collections.abc import Iterable
from typing import Any

from hostdev_core.runtime import operation as operations
from hostdev_core.simulated import SimulatedHost

World = dict[str, Any]


def world(host: SimulatedHost) -> World:
    """Read the kernel's side, the records and the lock files, without values that differ from run to run."""
    found: World = dict(host.snapshot())
    slots = found["pciback"]["slots"]
    found["pciback"] = {"slots": sorted(slots)}
    for record in host.ledger.records():
        values = record._replace(op=record.op and "an operation", since=0.0, inode=None)._asdict()
        values["stuck"] = bool(record.stuck)
        if record.owner is not None:
            uri = record.owner.uri.replace(host.root, "ROOT")
            values["owner"] = record.owner._replace(uri=uri)
        found[f"record {record.kind} {record.address}"] = values
    for name in operations.list_ids(host.state_dir):
        found[f"operation {name}"] = operations.describe(host.state_dir, name)
    return found


def devices(*worlds: World) -> list[str]:
    """List the devices of these worlds by name, also those that only have a record."""
    names = (name.split(" ")[-1] for each in worlds for name in each if "operation" not in name)
    return sorted({*names} - {"pciback", "xenstore"})


def part_of(world: World, name: str) -> World:
    """Pick the parts of one device: the kernel's side, its slot, its keys, its record."""
    key = name.replace(":", "-").replace(".", "-")
    return {
        "kernel": world.get(name),
        "slot": name in world["pciback"]["slots"],
        "keys": {path: value for path, value in world["xenstore"].items() if key in path},
        "records": [
            record
            for key, record in world.items()
            if key.startswith("record ") and key.endswith(f" {name}")
        ],
    }


def is_stuck(world: World, name: str) -> bool:
    """Tell whether the record of a device gives the reason for which it is stuck."""
    records = part_of(world, name)["records"]
    return any(record["stuck"] for record in records)


def differences(wanted: World, now: World) -> str:
    """List for a person each part of `now` that is not as in `wanted`."""
    names: Iterable[str] = sorted(
        name for name in {*wanted, *now} if wanted.get(name) != now.get(name)
    )
    return "; ".join(f"{name}: {now.get(name)}, wanted {wanted.get(name)}" for name in names)
