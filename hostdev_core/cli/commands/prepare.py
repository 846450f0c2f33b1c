"""`hostdev prepare` and `hostdev reattach`: lend a domain's devices, give them back."""

import shlex
from typing import Any

from hostdev_core.cli.accounting import take_account
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import complain, emit, emit_json
from hostdev_core.cli.request import check_order, domain_of, flags_of
from hostdev_core.cli.session import connected
from hostdev_core.connection import Connection
from hostdev_core.errors import ReattachError
from hostdev_core.model.assignment import Assignment, Returned
from hostdev_core.model.domain import Domain, pci_hostdevs, usb_hostdevs


def run(options: Options) -> int:
    """Carry out the command."""
    return prepare(options) if options.command == "prepare" else reattach(options)


def prepare(options: Options) -> int:
    """Lend all devices or none; print the words for the hypervisor.

    A line for each device; one line for all, where the hypervisor wants them as one list.
    """
    check_order(options)
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
    """Give back what a domain holds, or these of its devices; every device is tried.

    What was done is told, also where something failed: that is raised when it is.
    """
    domain = domain_of(options)
    with connected(options) as conn:
        check_order(options, lambda: _has_any(conn, domain.name))
        failure: ReattachError | None = None
        try:
            returned = _give_back(conn, domain)
        except ReattachError as error:
            failure, returned = error, Returned.of(error.returned)
        account = take_account(conn, domain, returned, options.program, failure)
    if options.json:
        emit_json(account.document())
    else:
        emit("\n".join(account.lines()))
    if failure is not None:
        raise failure
    return 0


def _has_any(conn: Connection, name: str) -> bool:
    """Whether a domain of this name has anything, under whichever driver."""
    return any(r.owner and r.owner.domain == name for r in conn.host.ledger.records())


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
