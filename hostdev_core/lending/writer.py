"""Carry out steps: the write, and the look that shows it was done; and load stub drivers.

A step is done when its write has returned and sysfs shows it. The `driver` link alone proves
nothing: the kernel takes it away before the driver's remove runs and makes it before probe returns.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from functools import partial

from hostdev_core.bus.bus import Bus
from hostdev_core.errors import KernelError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.users import find_dependents, find_users
from hostdev_core.kernel.sysfs import Only
from hostdev_core.model.plan import Plan
from hostdev_core.model.record import Found, Record
from hostdev_core.model.steps import AnyStep, BackendStep, Step
from hostdev_core.planning.steps import steps_to_stub
from hostdev_core.runtime.lanes import Lane, raise_first, run_lanes
from hostdev_core.runtime.operation import Operation

log = logging.getLogger("hostdev")
_MOVES = frozenset({"override", "unbind", "bind"})
# Their remove or probe breaks when two run at once (ioatdma: bug 209041 of the kernel's bugzilla).
SERIAL_DRIVERS = frozenset({"ioatdma"})


class Writer:
    """Carries out steps on one host; `lock` is the descriptor of the operation's lock."""

    def __init__(self, host: Host, lock: int | None = None) -> None:
        self._host = host
        self._lock = lock

    def carry_out(self, lane: Lane, step: Step, record: Record) -> None:
        """Do a step for a record's device within its deadline; KernelError when it is refused or without
        effect.

        Nothing is written to another device that came to the address.
        """
        bus = self._host.buses[record.kind]
        device = f"{bus.folder}/{step.device}"
        path, value = self._target(bus, device, step)
        only = None if record.inode is None else (device, record.inode)
        seconds = {
            "load": self._host.deadlines.load,
            "unbind": self._host.deadlines.unbind,
            "bind": self._host.deadlines.bind,
            "probe": self._host.deadlines.bind,
            "reset": self._host.deadlines.reset,
        }.get(step.action, self._host.deadlines.attribute)
        log.info("%s", step)
        lane.do(
            str(step),
            path,
            seconds,
            lambda: self._write(lane, bus, step, path, value, only),
        )

    def run(self, lane: Lane, doing: str, work: Callable[[], None], *, gone: bool = False) -> None:
        """Do a backend's own step within the deadline of an attribute.

        When its device is `gone`, a backend may have to bind the one that is there now.
        """
        limits = self._host.deadlines
        seconds = limits.unbind + limits.bind if gone else limits.attribute
        lane.do(doing, "", seconds, work)

    def load(self, lane: Lane, module: str) -> None:
        """Load a module within its deadline."""
        path, seconds = f"module/{module}", self._host.deadlines.load
        work = partial(self._host.modules.load, module, lock=self._lock)
        log.info("load module %s", module)
        lane.do(f"load module {module}", path, seconds, work)

    def _target(self, bus: Bus, device: str, step: Step) -> tuple[str, str]:
        if step.action == "override":
            return f"{device}/driver_override", step.value or "\n"
        if step.action == "power":
            return f"{device}/power/control", f"{step.value}"
        if step.action == "reset":
            return f"{device}/reset", "1"
        if step.action == "load":
            return f"module/{step.value}", f"{step.value}"
        if step.action == "probe":
            return f"{bus.root}/drivers_probe", step.device
        return f"{bus.root}/drivers/{step.value}/{step.action}", step.device

    def _write(
        self, lane: Lane, bus: Bus, step: Step, path: str, value: str, only: Only | None
    ) -> None:
        if step.action == "load":
            return self._host.modules.load(value, lock=self._lock)
        if step.action == "power" and self._host.sysfs.read(path) in {value, None}:
            return None
        if step.action in {"unbind", "bind", "reset"}:
            with suppress(KernelError):  # it is for a message only
                before = find_dependents(self._host, step.device)
                lane.find_users = partial(find_users, self._host, step.device, before)
        try:
            self._change(lane, step, path, value, only)
        except KernelError as error:
            if (step.action, step.value) != ("reset", "if possible"):
                raise
            log.warning("%s; going on without", error)
            return None
        self._verify(bus, step, path, value)
        return None

    def _change(self, lane: Lane, step: Step, path: str, value: str, only: Only | None) -> None:
        """Make the write; KernelError with what the kernel said of the device meanwhile as notes."""
        try:
            self._host.sysfs.write(path, value, only=only)
        except KernelError as error:
            for line in lane.kernel.lines(step.device):
                error.add_note(f"kernel: {line}")
            raise

    def _verify(self, bus: Bus, step: Step, path: str, value: str) -> None:
        if step.action == "reset":
            return
        if step.action == "probe":
            driver = bus.kernel_driver(step.device)
            if driver in {None, step.value}:
                raise KernelError(
                    f"{step}: none took it, it is on {driver or 'no driver'} now; load the module of its"
                    " driver, then `hostdev recover`, or accept it with `hostdev device forget"
                    f" {step.device} --as-is`",
                    path=self._host.sysfs.path(path),
                    value=value,
                )
            return
        if step.action == "override":
            is_, wanted = bus.driver_override(step.device), step.value
        elif step.action == "power":
            is_, wanted = self._host.sysfs.read(path), step.value
        else:
            is_ = bus.kernel_driver(step.device)
            wanted = step.value if step.action == "bind" else None
        if is_ != wanted:
            raise KernelError(
                f"{step}: the write returned, but it is {is_ or 'none'} now, wanted {wanted or 'none'}",
                path=self._host.sysfs.path(path),
                value=value,
            )


def by_lane(records: Iterable[Record]) -> dict[Hashable, list[Record]]:
    """The records by what must go one after the other: an IOMMU group, or a fragile driver."""
    records = list(records)
    fragile = {
        r.group: r.found.kernel_driver for r in records if r.found.kernel_driver in SERIAL_DRIVERS
    }
    fragile.pop(None, None)
    lanes: dict[Hashable, list[Record]] = {}
    for record in records:
        key: Hashable = record.address if record.group is None else record.group
        if record.found.kernel_driver in SERIAL_DRIVERS:
            key = record.found.kernel_driver
        elif record.group in fragile:
            key = fragile[record.group]
        lanes.setdefault(key, []).append(record)
    return lanes


def after_load(
    lane: Lane, host: Host, record: Record, module: str, todo: Sequence[AnyStep]
) -> tuple[Record, list[AnyStep]]:
    """A claimed device's record and steps once its stub's module is loaded: its driver has a name.

    The load itself may have bound the device, which had no driver. StateError when something else did.
    """
    stub = record.stub or module
    bus = host.buses[record.kind]
    if not host.sysfs.exists(f"{bus.root}/drivers/{stub}"):
        stub = next(iter(host.modules.drivers(module)), stub)
    present: list[Found] = []

    def read() -> None:
        name = record.address
        present.append(Found(bus.kernel_driver(name), bus.driver_override(name)))

    path = bus.path(record.address)
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
    with Operation.start(host.state_dir, what) as operation:
        writer = Writer(host, operation.fd)

        def job(lane: Lane) -> None:
            for module in plan.loads:
                writer.load(lane, module)

        raise_first(run_lanes({"load": job}, operation=operation))
