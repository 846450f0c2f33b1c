"""`hostdev plan`: show the steps that prepare would take, or its refusal. Changes nothing."""

from collections.abc import Iterator

from hostdev_core.bus.buses import Buses
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit_json, prose
from hostdev_core.cli.request import check_order, domain_of, flags_of
from hostdev_core.cli.session import connected
from hostdev_core.model.plan import DevicePlan, Plan
from hostdev_core.worker.run import run_in_worker


def run(options: Options) -> int:
    """Print the plan. A worker makes it: a read that hangs in the kernel does not hang the command."""
    check_order(options)
    domain, flags = domain_of(options), flags_of(options)
    with connected(options, read_only=True) as conn:
        plan = run_in_worker(conn, type(conn).plan, domain, flags)
    if options.json:
        emit_json(plan.to_dict())
    else:
        prose(plan_lines(conn.host.buses, plan))
    return 0


def plan_lines(buses: Buses, plan: Plan) -> Iterator[str]:
    """Render the plan for people, a line at a time."""
    for device in plan.devices:
        yield from _device(buses, device)
    for record in plan.present:
        yield f"{record.address}: lent to {record.owner} already"
    for record in plan.upgrades:
        yield f"{record.address}: taken with its group already; handed to the domain now"
    # Not `plan.missing`: no word of the command allows a device to be missing.
    for warning in plan.warnings:
        yield f"warning: {warning}"
    if not plan.devices and not plan.upgrades:
        yield "nothing to do"


def _device(buses: Buses, device: DevicePlan) -> Iterator[str]:
    record = device.record
    about: list[str] = []
    if buses[record.kind].has_steps:
        group = "no IOMMU group" if record.group is None else f"IOMMU group {record.group}"
        about = [group, f"on {record.found.kernel_driver or 'no driver'} now"]
    if not record.handed:
        about.append("taken for its group only")
    back = "goes to the inactive list" if record.rests_on_list else "returns as found"
    home = "goes to the inactive list" if record.home == "inactive" else back
    yield f"{record.address}: {', '.join([*about, home + ' after use'])}"
    for number, step in enumerate(device.steps, 1):
        yield f"  {number}. {step}"
        yield f"     undo: {step.undo}"
    if not device.steps:
        yield "  nothing is written: " + ("on its stub already" if about else "it is reserved")
