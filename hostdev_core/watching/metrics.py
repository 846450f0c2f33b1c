"""Figures of a host for Prometheus, in its text exposition format (version 0.0.4).

Names, labels and help texts are part of the command's interface: docs/watching.md has them all.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from hostdev_core.errors import InputError, NotPermittedError, StateError
from hostdev_core.inventory.drift import Drift, find_drift
from hostdev_core.inventory.inventory import UNSETTLED, Inventory, look, record_state
from hostdev_core.kernel.processes import printable
from hostdev_core.kernel.replaced import replace
from hostdev_core.runtime.operation import is_alive, list_ids

if TYPE_CHECKING:
    from hostdev_core.host import Host
    from hostdev_core.model.record import Record

STATES = (
    *("free", "lent", "sibling", "inactive", "preparing", "releasing", "waiting"),
    *("left over", "stuck", "unknown"),
)
DRIFTS = ("gone", "replaced", "rebound")
Labels = dict[str, str]


class Metric(NamedTuple):
    """One metric: its name, its help, and its samples by their labels. All are gauges."""

    name: str
    help: str
    samples: list[tuple[Labels, float]]


class Figures(NamedTuple):
    """What a look has found: the text for Prometheus, and why the ledger could not be read, if so."""

    text: str
    unread: str | None


def measure(host: "Host") -> Figures:
    """Look once, and count; where the ledger cannot be read, that is one of the figures."""
    inventory = look(host, tolerant=True)
    records = [*(inventory.records or {}).values()]
    states = {record.key: _state(host, record) for record in records}
    drifts = find_drift(host, records) if records else []
    metrics = [
        *_of_devices(host, inventory, states, drifts),
        *_of_records(records, states),
        _of_operations(host),
    ]
    return Figures("".join(map(_rendered, metrics)), inventory.unread)


def _state(host: "Host", record: "Record") -> str:
    return record_state(record, lambda operation: is_alive(host.state_dir, operation))


def _of_devices(
    host: "Host",
    inventory: Inventory,
    states: dict[tuple[str, str], str],
    drifts: Iterable[Drift],
) -> Iterator[Metric]:
    default = "free" if inventory.unread is None else "unknown"
    keys = {(device.kind, device.name) for device in inventory.devices} | states.keys()
    count = Counter((bus, states.get((bus, name), default)) for bus, name in keys)
    yield Metric(
        "hostdev_devices",
        "Devices that are there or have a record, by bus and state.",
        [
            ({"bus": bus, "state": state}, count[bus, state])
            for bus in host.buses
            for state in STATES
        ],
    )
    stuck = sum(state in UNSETTLED for state in states.values())
    yield Metric("hostdev_stuck_devices", "Devices that are stuck or left over.", [({}, stuck)])
    what = Counter(drift.what for drift in drifts)
    yield Metric(
        "hostdev_drifted_records",
        "Records that do not tell the truth any more, by what has become of their device.",
        [({"what": name}, what[name]) for name in DRIFTS],
    )
    yield Metric(
        "hostdev_ledger_readable",
        "Whether the ledger could be read (1) or not (0).",
        [({}, inventory.unread is None)],
    )


def _of_records(records: "list[Record]", states: dict[tuple[str, str], str]) -> Iterator[Metric]:
    samples: list[tuple[Labels, float]] = []
    for record in records:
        labels = {"bus": record.kind, "address": record.address, "state": states[record.key]}
        owner = record.owner
        labels |= {"driver": record.backend, "domain": owner.domain if owner else ""}
        samples.append((labels, record.since))
    yield Metric(
        "hostdev_record_since_timestamp_seconds",
        "Since when a device is lent, detached or at work, in seconds since the epoch.",
        samples,
    )


def _of_operations(host: "Host") -> Metric:
    alive = Counter(_liveness(host, operation) for operation in list_ids(host.state_dir))
    samples: list[tuple[Labels, float]] = [
        ({"liveness": name}, alive[name]) for name in ("alive", "dead")
    ]
    told = "Operations that are at work, and those that were killed and not yet cleared up after."
    return Metric("hostdev_operations", told, samples)


def _liveness(host: "Host", operation: str) -> str:
    """Whether an operation is "alive" or "dead"; "unknown" where its file may not be opened."""
    try:
        return "alive" if is_alive(host.state_dir, operation) else "dead"
    except StateError:
        return "unknown"


def _rendered(metric: Metric) -> str:
    lines = [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
    for labels, value in metric.samples:
        pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        number = repr(float(value)).removesuffix(".0")
        lines.append(f"{metric.name}{{{pairs}}} {number}" if pairs else f"{metric.name} {number}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    """Escape a label's value; what cannot be printed is "?", since a terminal may show it."""
    shown = printable(text)
    return shown.replace("\\", "\\\\").replace('"', '\\"')


def write_textfile(path: str, text: str) -> None:
    """Put a text into a file of mode 0644 in one step: a reader sees the former one or this, never half.

    The new file is made beside the old one, by a name that node_exporter does not read. InputError for a
    path that cannot be a file; NotPermittedError or StateError where it cannot be written.
    """
    if os.path.isdir(path) or not os.path.basename(os.path.abspath(path)):
        raise InputError(f"{path!r} is a directory; name a file in it, like hostdev.prom")
    try:
        replace(path, text, mode=0o644)
    except PermissionError as error:
        raise NotPermittedError(
            f"may not write {path}: {error.strerror}; it is as it was"
        ) from error
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}; it is as it was") from error
