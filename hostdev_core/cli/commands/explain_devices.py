"""`hostdev explain DEVICE...`: whether devices can be lent now, and if not, every reason why not."""

import shlex
from collections.abc import Iterator, Sequence

from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit_json, pairs
from hostdev_core.cli.request import flags_of, hostdevs_of
from hostdev_core.cli.session import connected
from hostdev_core.connection import Connection
from hostdev_core.facts.facts import Facts, device_text
from hostdev_core.facts.find import find_devices
from hostdev_core.model.domain import Domain
from hostdev_core.model.explanation import Explanation, Reason, Resetting
from hostdev_core.worker.run import run_in_worker

NOBODY = "hostdev-explain"
"""The domain that is asked for: nobody's, so that nothing is its own already."""
Row = tuple[str, object]


def explain_devices(options: Options) -> int:
    """Explain the devices; exit code 1 where one of them cannot be lent.

    A worker asks the rules: a read that hangs in the kernel does not hang the command.
    """
    with connected(options, read_only=True) as conn:
        facts = Facts.of(conn.host)
        names = _names(facts, options.devices)
        found = explain_all(conn, options, names)
    if options.json:
        emit_json({"uri": conn.uri, "devices": [each.to_dict() for each in found]})
    else:
        for number, each in enumerate(found):
            pairs(_title(facts, each), _rows(options, conn.uri, each), apart=number > 0)
    return 0 if all(each.is_lendable for each in found) else 1


def find_lendable(options: Options, names: Sequence[str]) -> set[str]:
    """Those of these devices that can be lent now, by the connection of `--lendable`."""
    options.uri = options.lendable or options.uri
    with connected(options, read_only=True) as conn:
        return {each.device for each in explain_all(conn, options, names) if each.is_lendable}


def explain_all(
    conn: Connection, options: Options, names: Sequence[str]
) -> tuple[Explanation, ...]:
    """Explain devices by the names that the ledger has for them, in a worker."""
    domain = Domain(NOBODY, hostdevs_of(options, names))
    return run_in_worker(conn, type(conn).explain, domain, flags_of(options))


def _names(facts: Facts, texts: Sequence[str]) -> list[str]:
    """The devices that texts mean, each once; also those that only a record knows."""
    names: dict[str, None] = {}
    for text in texts:
        devices, records = find_devices(facts, text)
        names |= dict.fromkeys([device.name for device in devices])
        names |= dict.fromkeys([record.address for record in records])
    return [*names]


def _title(facts: Facts, found: Explanation) -> str:
    for device in facts.inventory.devices:
        if device.name == found.device:
            described = facts.describe(device)
            return f"{found.device}: {device_text(described)} [{described['ids']}]"
    return found.device


def _rows(options: Options, uri: str, found: Explanation) -> Iterator[Row]:
    count = len(found.reasons)
    no = f"no: {count} reason{'s' if count > 1 else ''}"
    yield f"lend by {uri}", no if found.reasons else "yes"
    for reason in found.reasons:
        yield from _reason(options, reason)
    for text in found.first:
        yield "before", f"`hostdev prepare` recovers what a killed call left: {text}"
    for text in found.warnings:
        yield "warning", text
    yield "the host loses", "; ".join(found.losses) or None
    if found.resets is not None:
        yield "IOMMU group", _group(found)
        yield "reset", _resets(found.resets)


def _reason(options: Options, reason: Reason) -> Iterator[Row]:
    yield reason.rule or "no answer", reason.reason
    for fact in reason.evidence:
        yield "", fact
    if reason.passable and reason.rule is not None:
        words = [*options.program, "prepare", "--allow", reason.rule, "DOMAIN", reason.device]
        yield "", f"to pass it: `{shlex.join(words)}`"


def _group(found: Explanation) -> str:
    if found.iommu_group is None:
        return "none"
    others = ", ".join(f"{name} ({driver or 'no driver'})" for name, driver in found.members)
    return f"{found.iommu_group}, {f'with {others}' if others else 'alone'}"


def _resets(found: Resetting) -> str:
    methods = ", ".join(found.methods) or "none: a guest finds the device as the last user left it"
    if not found.along:
        return methods
    return f"{methods}; VFIO's hot reset of its bus resets {', '.join(found.along)}, too"
