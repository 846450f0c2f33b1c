"""Steps: what is done to a PCI device, as data, in order; and the steps of its way home.

Pure: nothing here reads or writes the machine. lending/writer.py carries steps out.
"""

from collections.abc import Sequence

from hostdev_core.errors import StateError
from hostdev_core.model.record import Found, Record
from hostdev_core.model.steps import BackendStep, HomeStep, Step, UndoBackend

PROBE = "drivers_probe"  # among a record's words: to whom it goes is the kernel's choice


def steps_to_stub(device: str, found: Found, stub: str) -> list[Step]:
    """From where it was found to the stub; none when it is there.

    `driver_override` first: no other driver can win the race, and the errno of `bind` is the
    probe's own.
    """
    if found.kernel_driver == stub:
        return []
    steps = [Step("override", device, stub, found.driver_override)]
    if found.kernel_driver is not None:
        steps.append(Step("unbind", device, found.kernel_driver))
    return [*steps, Step("bind", device, stub)]


def steps_home(
    record: Record, present: Found, backend: Sequence[BackendStep], *, driver_loaded: bool = True
) -> list[HomeStep]:
    """From where a device is to where it was found; the one way back.

    Only what is recognised is touched: an override or a driver that is neither the stub's, nor the
    former, nor none was set by somebody else, and raises StateError: hands off. A former driver's
    module is loaded first, and takes a device without driver by itself: look again then.
    """
    if wants_probe(record):
        return _steps_by_probe(record, present, backend, driver_loaded=driver_loaded)
    _check_drift(record, present)
    found, device = record.found, record.address
    steps: list[HomeStep] = []
    override = present.driver_override
    moves = present.kernel_driver != found.kernel_driver
    if moves and not driver_loaded and found.module:
        steps.append(Step("load", device, found.module))
    if moves and found.kernel_driver is not None and override != found.kernel_driver:
        steps.append(Step("override", device, found.kernel_driver, override))
        override = found.kernel_driver
    if moves and present.kernel_driver is not None:
        steps.append(Step("unbind", device, present.kernel_driver))
    steps += (UndoBackend(step) for step in reversed(backend))
    if moves and found.kernel_driver is not None:
        steps.append(Step("bind", device, found.kernel_driver))
    if override != found.driver_override:
        steps.append(Step("override", device, found.driver_override, override))
    if found.power_control is not None:
        steps.append(Step("power", device, found.power_control))
    return steps


def wants_probe(record: Record) -> bool:
    """Whether the kernel is to choose the driver that the device goes to: nobody knows it by name."""
    return PROBE in record.allowed.split()


def _steps_by_probe(
    record: Record, present: Found, backend: Sequence[BackendStep], *, driver_loaded: bool
) -> list[HomeStep]:
    """From a stub to whatever driver of the host takes it; one that has it already is home."""
    device, stub = record.address, record.stub
    if present.driver_override not in {stub, None}:
        _check_drift(record, present._replace(kernel_driver=stub))
    arrived = present.kernel_driver not in {stub, None}
    steps: list[HomeStep] = []
    if not arrived and not driver_loaded:
        steps.append(Step("load", device, record.found.module))
    if present.driver_override is not None:
        steps.append(Step("override", device, None, present.driver_override))
    if not arrived and present.kernel_driver is not None:
        steps.append(Step("unbind", device, present.kernel_driver))
    steps += (UndoBackend(step) for step in reversed(backend))
    return steps if arrived else [*steps, Step("probe", device, stub)]


def _check_drift(record: Record, present: Found) -> None:
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
