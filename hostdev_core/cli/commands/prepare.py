"""`hostdev prepare`: lend devices to a domain."""

import shlex
from typing import Any

from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit, emit_json
from hostdev_core.cli.request import check_order, domain_of, flags_of
from hostdev_core.cli.session import connected
from hostdev_core.model.assignment import Assignment


def run(options: Options) -> int:
    """Lend all devices or none; print the arguments for the hypervisor.

    A line for each device; one line for all, where the hypervisor wants them as one list.
    """
    check_order(options)
    domain = domain_of(options)
    with connected(options) as conn:
        assignments = conn.prepare_hostdevs(domain, flags_of(options))
        arguments = conn.arguments(assignments)
    if options.json:
        described = [_assignment(each) for each in assignments]
        emit_json({"assignments": described, "arguments": [*arguments]})
        return 0
    lines = [each.arguments for each in assignments]
    # They differ from the devices' own, put together, where the hypervisor wants one list (xl: pci=[...]).
    if arguments != tuple(word for line in lines for word in line):
        lines = [arguments]
    emit("\n".join(shlex.join(line) for line in lines if line))
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
