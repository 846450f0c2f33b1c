"""Plan the steps that bind a PCI device to a stub, and those that restore it, from wherever it is.

Pure: nothing here reads or writes the machine. lending/writer.py carries steps out.
"""

from collections.abc import Sequence

from hostdev_core.errors import StateError
from hostdev_core.model.plan import BackendStep, Step, UndoBackend, UndoStep
from hostdev_core.model.record import Found, Record

PROBE = "drivers_probe"  # among a record's `allowed`: the kernel chooses the driver that it goes to


def steps_to_stub(device: str, found: Found, stub: str) -> list[Step]:
    """Plan the steps from where a device was found to its stub; none when it is there already.

    `driver_override` is set first: then no other driver can win the race, and the errno of `bind` is
    the probe's own.
    """
    if found.kernel_driver == stub:
        return []
    steps = [Step("override", device, stub, found.driver_override)]
    if found.kernel_driver is not None:
        steps.append(Step("unbind", device, found.kernel_driver))
    return [*steps, Step("bind", device, stub)]


def steps_back(
    record: Record, present: Found, backend: Sequence[BackendStep], *, driver_loaded: bool = True
) -> list[UndoStep]:
    """Plan the steps from where a device is now (`present`) to where it was found.

    StateError when its override or its driver is neither the stub's, nor the former, nor none: somebody
    else set that, and it is not touched. `driver_loaded`: whether the former driver is there. If not, its
    module is loaded first, which may bind a device without a driver by itself: plan anew after that step.
    """
    if wants_probe(record):
        return _steps_by_probe(record, present, backend, driver_loaded=driver_loaded)
    _check_drift(record, present)
    found, device = record.found, record.address
    steps: list[UndoStep] = []
    override = present.driver_override
    moves = present.kernel_driver != found.kernel_driver
    if moves and not driver_loaded and found.module:
        steps.append(Step("load", device, found.module))
    # The override names the former driver while the device moves, so that no other can take it.
    if moves and found.kernel_driver is not None and override != found.kernel_driver:
        steps.append(Step("override", device, found.kernel_driver, override))
        override = found.kernel_driver
    if moves and present.kernel_driver is not None:
        steps.append(Step("unbind", device, present.kernel_driver))
    # Off the stub, and before its driver binds: the last step first.
    steps += (UndoBackend(step) for step in reversed(backend))
    if moves and found.kernel_driver is not None:
        steps.append(Step("bind", device, found.kernel_driver))
    # After the bind: until then it kept other drivers away.
    if override != found.driver_override:
        steps.append(Step("override", device, found.driver_override, override))
    # Always, as drivers change it; the writer skips it where it is so already.
    if found.power_control is not None:
        steps.append(Step("power", device, found.power_control))
    return steps


def wants_probe(record: Record) -> bool:
    """Whether the kernel is to choose the driver that the device goes to, as its name is not known."""
    return PROBE in record.allowed.split()


def _steps_by_probe(
    record: Record, present: Found, backend: Sequence[BackendStep], *, driver_loaded: bool
) -> list[UndoStep]:
    """Plan the steps from a stub to the host driver that a probe finds; a device on one has arrived."""
    device, stub = record.address, record.stub
    if present.driver_override not in {stub, None}:
        # Any host driver is all right here; only the override can be somebody else's.
        _check_drift(record, present._replace(kernel_driver=stub))
    arrived = present.kernel_driver not in {stub, None}
    steps: list[UndoStep] = []
    if not arrived and not driver_loaded:
        steps.append(Step("load", device, record.found.module))
    # An override of the stub's would let the probe choose the stub again.
    if present.driver_override is not None:
        steps.append(Step("override", device, None, present.driver_override))
    if not arrived and present.kernel_driver is not None:
        steps.append(Step("unbind", device, present.kernel_driver))
    steps += (UndoBackend(step) for step in reversed(backend))
    return steps if arrived else [*steps, Step("probe", device, stub)]


def _check_drift(record: Record, present: Found) -> None:
    """Raise StateError for a driver or an override that hostdev did not set and did not find."""
    found = record.found
    drivers = {record.stub, found.kernel_driver, None}
    overrides = {record.stub, found.kernel_driver, found.driver_override, None}
    for what, value, known in (
        ("kernel driver", present.kernel_driver, drivers),
        ("driver_override", present.driver_override, overrides),
    ):
        if value not in known:
            raise StateError(
                f"{record.address} has {what} {value!r}, which hostdev did not set (its stub is"
                f" {record.stub}, it was found on {found.kernel_driver or 'no driver'}); put it back,"
                f" or accept it with `hostdev device forget {record.address} --as-is`"
            )
