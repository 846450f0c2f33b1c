"""`hostdev reattach`: give a domain's devices back."""

from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit_json, prose
from hostdev_core.cli.reattach_report import make_report
from hostdev_core.cli.request import check_order, domain_of
from hostdev_core.cli.session import connected
from hostdev_core.connection import Connection
from hostdev_core.errors import ReattachError
from hostdev_core.ledger.store import Ledger
from hostdev_core.model.assignment import Returned
from hostdev_core.model.domain import Domain, pci_hostdevs, usb_hostdevs


def run(options: Options) -> int:
    """Give back all devices of a domain, or those named; every device is tried.

    The report is printed also where something failed; the error is raised after it.
    """
    domain = domain_of(options)
    with connected(options) as conn:
        ledger = conn.host.ledger  # loaded here, once: the worker and the report look into it
        # Later than in prepare: a domain whose name reads as a device may hold something.
        check_order(options, lambda: _has_any(ledger, domain.name))
        failure: ReattachError | None = None
        try:
            returned = _give_back(conn, domain)
        except ReattachError as error:
            failure, returned = error, Returned.of(error.returned)
        report = make_report(conn, domain, returned, options.program, failure)
    if not options.json:
        prose(report.lines())
    if failure is not None:
        options.answer = report.document()
        raise failure
    if options.json:
        emit_json(report.document())
    return 0


def _has_any(ledger: Ledger, name: str) -> bool:
    """Tell whether a domain of this name has any device, under any driver."""
    return any(r.owner and r.owner.domain == name for r in ledger.records())


def _give_back(conn: Connection, domain: Domain) -> Returned:
    """Give back a domain's devices, or those it names, of both kinds; the errors of both are raised as one.

    USB devices first: a name that means several of them is refused with nothing changed.
    """
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
    returned = Returned.joined(reversed(parts))  # PCI first, as in all other output
    if errors:
        failed = ReattachError(f"not everything of {domain.name} was given back", errors)
        failed.returned = returned
        raise failed
    return returned
