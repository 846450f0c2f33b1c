"""Find the other devices that loading a stub driver's module would bind, and refuse such a load."""

import fnmatch
from collections.abc import Callable, Collection, Iterable
from functools import partial

import attrs

from hostdev_core.bus.pci import read_override
from hostdev_core.errors import KernelError, KernelTimeoutError, NotAssignableError
from hostdev_core.host import Host
from hostdev_core.inventory.inventory import look
from hostdev_core.kernel.modprobe import Line, underscored
from hostdev_core.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from hostdev_core.model.device import PCIDevice
from hostdev_core.model.plan import Plan
from hostdev_core.runtime.lanes import Lane, run_lanes

_ANY = 0xFFFFFFFF  # PCI_ANY_ID
_NO_DRIVER = (
    "none"  # keeps every driver away, by convention (Documentation/ABI/testing/sysfs-bus-pci)
)


def check_loads(
    host: Host,
    known: Iterable[str],
    plan: Plan,
    warn: Callable[[str], None],
) -> None:
    """Refuse to load a module that would bind devices outside the request: any without a driver.

    NotAssignableError for devices that its `ids=` matches, or whose driver_override names its driver, and
    for all that a module which comes along would bind. `known` are stub drivers whose name is no guess.
    A device that has a record is not checked: the record keeps it.
    """
    stubs = _stubs(plan)
    if not stubs:
        return
    inventory = look(host)  # all of it: any device without a driver may be bound
    taken = {device.record.address for device in plan.devices}
    # The kernel takes no device from its driver: a load binds only those without one.
    idle = [
        device
        for device in inventory.pci.values()
        if device.kernel_driver is None
        and (device.name in taken or inventory.record_of_device((device.kind, device.name)) is None)
    ]
    overrides = _read_overrides(host, idle, stubs)
    for module, stub in stubs.items():
        load = _Load(host, module, stub, known, overrides)
        load.check(idle, taken)
        if load.unseen is not None:
            warn(load.unseen)


def _stubs(plan: Plan) -> dict[str, str]:
    """The modules that a plan loads, each with the name of the driver that it should bring."""
    if not plan.loads:
        return {}
    return {
        module: device.record.stub or module
        for device in plan.devices
        for module in Plan(None, (device,)).loads
    }


def _read_overrides(
    host: Host, devices: Iterable[PCIDevice], stubs: Iterable[str]
) -> dict[str, str | None]:
    """Read the driver_override of each device, under a deadline: a device's lock may be kept for ever."""
    found: dict[str, str | None] = {}

    def read(name: str) -> None:
        found[name] = read_override(host.sysfs, name)

    def job(lane: Lane) -> None:
        for name in (device.name for device in devices):
            path, seconds = f"{PCI_DEVICES}/{name}", host.deadlines.attribute
            lane.do(f"read {name}", path, seconds, partial(read, name))

    report = run_lanes({"overrides": job})
    if report.interrupted is not None:
        raise report.interrupted
    for error in report.errors.values():
        if isinstance(error, KernelError):
            raise _unknown(", ".join(stubs), error) from error
        raise error
    for lane in report.late.values():
        raise KernelTimeoutError(
            f"{lane.doing}: it has no driver and does not answer, so whether loading"
            f" {', '.join(stubs)} would bind it cannot be known; load that yourself first",
            path=host.sysfs.path(lane.path),
            value="",
        )
    return found


@attrs.define(eq=False)
class _Load:
    """One module that is to be loaded, with the ids and overrides by which it would bind devices."""

    host: Host
    module: str
    stub: str
    known: Iterable[str]
    overrides: dict[str, str | None]
    unseen: str | None = None
    _ids: list[tuple[str, tuple[int, ...]]] = attrs.field(init=False)
    _along: dict[str, list[str]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        try:
            lines = self.host.modules.configuration.options(self.module)
            along = self.host.modules.brought_along(self.module)
            aliases = self.host.modules.pci_aliases(along) if along else {}
        except KernelError as error:
            raise _unknown(self.module, error) from error
        self._ids = [found for line in lines for found in _parse_ids(line)]
        if along is None or aliases is None:
            self.unseen = (
                f"what modules come along with {self.module}, and what they bind, cannot be known"
            )
        self._along = {name: (aliases or {}).get(name, []) for name in along or ()}

    def check(self, idle: Iterable[PCIDevice], taken: Collection[str]) -> None:
        """Raise one NotAssignableError for all idle devices that it would bind, or when that is unknown."""
        reasons = (self.reason(device, is_taken=device.name in taken) for device in idle)
        try:
            seized = [reason for reason in reasons if reason is not None]
        except KernelError as error:
            raise _unknown(self.module, error) from error
        if seized:
            raise NotAssignableError(
                f"loading {self.module} would bind {'; '.join(seized)}. Nobody asked for that: change it, or"
                f" load the module yourself first: modprobe {self.module}",
                device=seized[0].partition(" ")[0],
                rule="module-ids",
                evidence=seized,
            )

    def reason(self, device: PCIDevice, *, is_taken: bool) -> str | None:
        """Why it would bind a device, in words that begin with its address; None when it would not.

        A device of the request is claimed before the load, and may be bound by the stub itself: its
        record names the stub, unless that name is a guess.
        """
        # With an override, the kernel matches nothing else: neither ids nor aliases.
        override = self.overrides.get(device.name)
        if override is not None:
            own = override == self.stub and not is_taken
            if own or underscored(override) in self._along or self._may_bring(override):
                return f"{device.name} (its driver_override is {override!r})"
            return None
        for name, patterns in self._along.items():
            if any(fnmatch.fnmatchcase(device.modalias, pattern) for pattern in patterns):
                return f"{device.name} ({name} comes along, and drives it)"
        # The record of a taken device names the stub: bound by its ids, it is where it should be.
        for place, wanted in () if is_taken and self.stub in self.known else self._ids:
            if _accepts(wanted, device):
                return f"{device.name} ({place} gives {self.module} the ids of it)"
        return None

    def _may_bring(self, override: str) -> bool:
        """Whether the module may bring a driver of this name, instead of the name that was guessed."""
        if self.stub in self.known or override in {self.stub, _NO_DRIVER}:
            return False
        if underscored(override) in {underscored(self.module), underscored(self.stub)}:
            return True
        # A driver that is there already, or has a module of its own, does not come with this one.
        there = self.host.sysfs.exists(f"{PCI_DRIVERS}/{override}")
        return not there and self.host.modules.find(override)[0] is not True


def _unknown(module: str, error: KernelError) -> NotAssignableError:
    """Build the refusal of a load whose effect on other devices cannot be read."""
    return NotAssignableError(
        f"what loading {module} would do cannot be known: {error}; load it yourself first",
        device=module,
        rule="module-ids",
        evidence=[str(error)],
    )


def _parse_ids(line: Line) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Parse `ids=` as the kernel's vfio_pci_fill_ids(): vendor, device, subvendor, subdevice, class, mask."""
    for word in line.words:
        # The kernel takes the quotes off, too (next_arg() in lib/cmdline.c).
        key, _, value = word.replace('"', "").partition("=")
        for text in value.split(",") if key == "ids" else ():
            parts = text.split(":")
            try:
                numbers = [int(part, 16) for part in parts[:6]]
            except ValueError:
                continue
            # The kernel's defaults for missing fields; it ignores an entry with a vendor alone.
            if len(numbers) > 1:
                yield line.place, tuple(numbers + [_ANY, _ANY, 0, 0][len(numbers) - 2 :])


def _accepts(wanted: tuple[int, ...], device: PCIDevice) -> bool:
    """Match as pci_match_one_device() in the kernel; a device whose ids are unknown matches anything."""
    texts = (*device.ids.split(":"), *device.subsystem_ids.split(":"), device.class_code)
    if any("?" in text for text in texts):
        return True
    *ids, class_ = (int(text, 16) for text in texts)
    same = all(want in (_ANY, got) for want, got in zip(wanted, ids, strict=False))
    return same and not (wanted[4] ^ class_) & wanted[5]
