"""Carry out steps: make the write, and check in sysfs that it took effect; and load stub drivers.

A step is done when its write has returned and sysfs shows it. The `driver` link alone proves
nothing: the kernel takes it away before the driver's remove runs and makes it before probe returns.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial

from hostdev_core.bus.bus import Bus
from hostdev_core.errors import KernelError, StateError
from hostdev_core.host import Host
from hostdev_core.inventory.users import Dependents, find_dependents, find_users, find_vfio_nodes
from hostdev_core.kernel.sysfs import Only
from hostdev_core.model.device import is_vfio_driver
from hostdev_core.model.plan import AnyStep, BackendStep, Plan, Step
from hostdev_core.model.record import Found, Record
from hostdev_core.planning.steps import steps_to_stub
from hostdev_core.runtime.lane_report import raise_first
from hostdev_core.runtime.lanes import Lane, run_lanes
from hostdev_core.runtime.operation import Operation

log = logging.getLogger("hostdev")
_MOVES = frozenset({"override", "unbind", "bind"})
# Their remove or probe breaks when two run at once (ioatdma: bug 209041 of the kernel's bugzilla).
SERIAL_DRIVERS = frozenset({"ioatdma"})


class Writer:
    """Carries out steps on one host; `lock` is the descriptor of the operation's lock.

    `dependents` are what was found below devices before anything was written, by their names; those of
    another device are found before its first write.
    """

    def __init__(
        self,
        host: Host,
        lock: int | None = None,
        dependents: Mapping[str, Dependents] | None = None,
    ) -> None:
        self._host = host
        self._lock = lock
        self._dependents = {**(dependents or {})}

    def carry_out(self, lane: Lane, step: Step, record: Record) -> None:
        """Carry out a step for a record's device; KernelError when it is refused or has no effect.

        Past the step's deadline the lane counts as overdue. Nothing is written to another device that
        came to the address.
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
        """Carry out a backend's own step within the deadline of an attribute.

        With its device `gone`, the deadline is longer: the backend may have to rebind the device that is
        there now.
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
        """The file that a step writes, below /sys, and the text; formats: Documentation/ABI/testing."""
        if step.action == "override":
            return f"{device}/driver_override", step.value or "\n"  # a bare newline clears it
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
        # It is so already, or the device has no such attribute.
        if step.action == "power" and self._host.sysfs.read(path) in {value, None}:
            return None
        if step.action in {"unbind", "bind", "reset"}:
            # Before the write: afterwards the device's interfaces and disks are not in sysfs any more.
            before = self._find_dependents(step)
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

    def _find_dependents(self, step: Step) -> Dependents:
        """What is below a device before a step; nothing but VFIO's nodes, while it is on a VFIO driver."""
        name = step.device
        if name not in self._dependents:
            find = find_vfio_nodes if is_vfio_driver(step.value) else find_dependents
            try:
                self._dependents[name] = find(self._host, name)
            except KernelError:  # the users are for a message only
                return Dependents()
        return self._dependents[name]

    def _change(self, lane: Lane, step: Step, path: str, value: str, only: Only | None) -> None:
        """Make the write; a KernelError gets the kernel's log lines about the device as notes."""
        try:
            self._host.sysfs.write(path, value, only=only)
        except KernelError as error:
            for line in lane.kernel.lines(step.device):
                error.add_note(f"kernel: {line}")
            raise

    def _verify(self, bus: Bus, step: Step, path: str, value: str) -> None:
        """Raise KernelError when sysfs does not show the effect of a write that returned."""
        if step.action == "reset":  # sysfs shows nothing of it
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
    """Group the records whose steps must run one after the other: by IOMMU group, or by fragile driver."""
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
    """Return a claimed device's record and remaining steps after its stub's module was loaded.

    The driver's name is known only now. The load itself may have bound the device, which had no driver;
    StateError when it is on another driver than the stub or the former one.
    """
    stub = record.stub or module
    bus = host.buses[record.kind]
    if not host.sysfs.exists(f"{bus.root}/drivers/{stub}"):
        # A module's driver may have another name than the module.
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
    # The moves are planned anew, from where the device is now.
    rest = [s for s in todo if isinstance(s, BackendStep) or s.action not in _MOVES]
    return record, [*steps_to_stub(record.address, present[0], stub), *rest]


def load_stubs(host: Host, what: str, plan: Plan) -> None:
    """Load the modules of a plan's stub drivers, before the devices are claimed.

    Only for a plan whose devices all have a driver: one without might be bound by the load. The modules
    may be unloaded at any time: the next decision plans a load again where it is needed.
    """
    with Operation.start(host.state_dir, what) as operation:
        writer = Writer(host, operation.fd)

        def job(lane: Lane) -> None:
            for module in plan.loads:
                writer.load(lane, module)

        raise_first(run_lanes({"load": job}, operation=operation))
