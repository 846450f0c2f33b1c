"""Load stub drivers' modules, and see what that did to the devices that are claimed."""

from collections.abc import Sequence

from hostdev_core.bus.pci import read_driver, read_override
from hostdev_core.errors import StateError
from hostdev_core.host import Host
from hostdev_core.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from hostdev_core.lending.writer import Writer
from hostdev_core.model.plan import Plan
from hostdev_core.model.record import Found, Record
from hostdev_core.model.steps import AnyStep, BackendStep
from hostdev_core.planning.steps import steps_to_stub
from hostdev_core.runtime.lanes import Lane, raise_first, run_lanes
from hostdev_core.runtime.operation import Operation

_MOVES = frozenset({"override", "unbind", "bind"})


def after_load(
    lane: Lane, host: Host, record: Record, module: str, todo: Sequence[AnyStep]
) -> tuple[Record, list[AnyStep]]:
    """A claimed device's record and steps once its stub's module is loaded: its driver has a name.

    The load itself may have bound the device, which had no driver. StateError when something else did.
    """
    stub = record.stub or module
    if not host.sysfs.exists(f"{PCI_DRIVERS}/{stub}"):
        stub = next(iter(host.modules.drivers(module)), stub)
    present: list[Found] = []

    def read() -> None:
        driver, override = (
            each(host.sysfs, record.address) for each in (read_driver, read_override)
        )
        present.append(Found(driver, override))

    path = f"{PCI_DEVICES}/{record.address}"
    lane.do(f"read {record.address}", path, host.deadlines.attribute, read)
    driver = present[0].kernel_driver
    if driver not in {None, stub, record.found.kernel_driver}:
        raise StateError(
            f"{record.address} was bound to {driver} when {module} was loaded, and its stub is {stub};"
            " see who binds it"
        )
    if stub != record.stub:
        old, record = record, record._replace(stub=stub)
        with host.ledger.transaction() as transaction:
            if not transaction.update(old, record):
                raise StateError(f"the record of {record.address} was changed by somebody else")
    rest = [s for s in todo if isinstance(s, BackendStep) or s.action not in _MOVES]
    return record, [*steps_to_stub(record.address, present[0], stub), *rest]


def load_stubs(host: Host, what: str, plan: Plan) -> None:
    """Load the stub drivers' modules; whether they stay loaded is nobody's promise.

    All devices are on drivers here. One without might be bound by the load, and is claimed first.
    """
    steps = {
        step.value: step
        for device in plan.devices
        for step in device.steps
        if not isinstance(step, BackendStep) and step.action == "load"
    }
    with Operation.start(host.state_dir, what) as operation:
        writer = Writer(host, operation.fd)

        def job(lane: Lane) -> None:
            for step in steps.values():
                writer.carry_out(lane, step)

        raise_first(run_lanes({"load": job}, operation=operation))
