"""`hostdev prepare` and `hostdev reattach`: lend a domain's devices, give them back."""

import shlex
from collections.abc import Iterator
from typing import Any

from hostdev_core.assignment import Assignment, Returned
from hostdev_core.cli import facts as fact
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import complain, emit, emit_json
from hostdev_core.cli.request import domain_of, flags_of
from hostdev_core.cli.session import connected
from hostdev_core.connection import Connection
from hostdev_core.domain import Domain, pci_hostdevs, usb_hostdevs
from hostdev_core.errors import ReattachError
from hostdev_core.record import Phase, Record


def run(options: Options) -> int:
    """Carry out the command."""
    return prepare(options) if options.command == "prepare" else reattach(options)


def prepare(options: Options) -> int:
    """Lend all devices or none; print the words for the hypervisor.

    A line for each device; one line for all, where the hypervisor wants them as one list.
    """
    domain = domain_of(options)
    with connected(options) as conn:
        assignments = conn.prepare_hostdevs(domain, flags_of(options))
        words = conn.arguments(assignments)
    if options.json:
        each_one = [_assignment(each) for each in assignments]
        emit_json({"assignments": each_one, "arguments": [*words]})
        return 0
    lines = [each.arguments for each in assignments]
    if words != tuple(word for line in lines for word in line):
        lines = [words]
    emit("\n".join(shlex.join(line) for line in lines if line))
    for each in assignments:
        if each.missing:
            complain(each.missing)
    return 0


def _assignment(assignment: Assignment) -> dict[str, Any]:
    device = assignment.device
    return {
        "hostdev": str(assignment.hostdev),
        "kind": assignment.hostdev.kind,
        "address": None if device is None else device.name,
        "node": assignment.node,
        "arguments": list(assignment.arguments),
        "missing": assignment.missing,
    }


def reattach(options: Options) -> int:
    """Give back what a domain holds, or these of its devices; every device is tried."""
    domain = domain_of(options)
    with connected(options) as conn:
        driver = conn.hostdev_driver.name if conn.hostdev_driver else ""
        returned = _give_back(conn, domain)
    left = [r for r in conn.host.ledger.records() if r.owner and r.owner.domain == domain.name]
    waiting = [r.address for r in left if r.phase is Phase.RELEASING and r.backend == driver]
    elsewhere = [record for record in left if record.owner and record.owner.driver != driver]
    if options.json:
        emit_json(_document(returned, waiting, elsewhere))
    else:
        emit("\n".join(_lines(domain, conn.uri, returned, waiting, elsewhere)))
    return 0


def _give_back(conn: Connection, domain: Domain) -> Returned:
    """USB devices first: a name that means several of them is refused with nothing changed."""
    if not domain.hostdevs:
        return conn.reattach_hostdevs(domain)
    usb, pci = usb_hostdevs(domain.hostdevs), pci_hostdevs(domain.hostdevs)
    parts: list[Returned] = []
    errors: list[Exception] = []
    for hostdevs, call in (usb, conn.reattach_usb_hostdevs), (pci, conn.reattach_pci_hostdevs):
        try:
            parts += [call(domain, hostdevs)] if hostdevs else ()
        except ReattachError as error:
            errors += error.exceptions
            parts.append(Returned.of(error.returned))
    returned = Returned.joined(reversed(parts))
    if errors:
        failed = ReattachError(f"not everything of {domain.name} was given back", errors)
        failed.returned = returned
        raise failed
    return returned


def _document(
    returned: Returned, waiting: list[str], elsewhere: list[Record]
) -> dict[str, list[Any]]:
    held = [
        {"address": record.address, "used_by": record.owner._asdict()}
        for record in elsewhere
        if record.owner is not None
    ]
    return {
        "returned": [*returned],
        "gone": [*returned.gone],
        "replaced": [*returned.replaced],
        "freed": fact.freed_facts(returned),
        "waiting": waiting,
        "not_held": [*returned.not_held],
        "held_elsewhere": held,
    }


def _lines(
    domain: Domain, uri: str, returned: Returned, waiting: list[str], elsewhere: list[Record]
) -> Iterator[str]:
    for address in returned:
        yield fact.outcome_words(returned, address)
    for address in waiting:
        yield f"{address} is free of {domain.name}; it waits on its stub for the rest of its IOMMU group"
    if not returned and not waiting:
        what = "none of these" if domain.hostdevs else "nothing"
        yield f"{domain.name} holds {what} under {uri}"
    else:
        yield from (f"{domain.name} does not hold {name}" for name in returned.not_held)
    for record in elsewhere:
        yield f"{record.address} is held by {record.owner}"
