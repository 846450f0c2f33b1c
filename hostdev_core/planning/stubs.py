"""Choose the stub driver that a device gets, and find the module that brings it."""

from collections.abc import Callable
from typing import NamedTuple

from hostdev_core.backend import CheckedBackend
from hostdev_core.errors import KernelError, NotAssignableError
from hostdev_core.host import Host
from hostdev_core.kernel.modprobe import Configuration
from hostdev_core.kernel.sysfs import PCI_DRIVERS
from hostdev_core.model.device import PCIDevice
from hostdev_core.model.domain import PCIHostdev
from hostdev_core.model.plan import Stub
from hostdev_core.model.record import Record
from hostdev_core.planning.request import Question

Warn = Callable[[str], None]


def choose(
    question: Question,
    backend: CheckedBackend,
    hostdev: PCIHostdev | None,
    device: PCIDevice,
    listed: Record | None,
) -> Stub:
    """Choose the stub for a device: the one that was asked for, the one it is on, or the backend's choice.

    A host driver that hands the device to guests itself is its stub. A sibling has no `hostdev`;
    `listed` is its record on the inactive list. NotAssignableError when there is no such stub.
    """
    host = question.host
    is_guest = question.request.is_for_guest and hostdev is not None
    choice = _Choice(backend, device, is_guest=is_guest)
    current, asked = device.kernel_driver, hostdev.stub if hostdev is not None else None
    choice.check_asked(asked)
    stays = choice.fits(current) and asked in {None, current}
    if listed is not None and not stays:
        raise choice.error(
            f"{device.name} is on the inactive list, on {current or 'no driver'}, and {backend.name} wants"
            f" {asked or choice.wanted[0]}; give it back first: `hostdev device reattach {device.name}`"
        )
    if current is not None and stays:
        return Stub(current)
    if hostdev is not None and not hostdev.managed:
        choice.check_unmanaged()
        return Stub(asked or choice.wanted[0])  # check_managed refuses it, whatever it needs
    name = asked or backend.choose_stub(device)
    if asked is None and name not in question.stubs:  # it will do for each device, if for one
        name = choice.checked(name)
    # A variant driver (mlx5-vfio-pci) would have been preferred.
    if asked is None and name == "vfio-pci" and (reason := host.modules.unknown_variants()):
        question.warn(
            f"whether there is a variant driver for {device.name} cannot be known: {reason}"
        )
    stub = question.stubs.get(name)
    if stub is None:
        module = backend.stub_modules.get(name, name)
        stub = question.stubs[name] = find_stub(host, device.name, name, module, question.warn)
    if stub.module is None or name in backend.stubs:
        return stub
    return Stub(name.replace("_", "-"), stub.module)  # what modules call their drivers as a rule


class _Choice(NamedTuple):
    """Which stubs will do for a device; `is_guest`: it is to be handed to a guest."""

    backend: CheckedBackend
    device: PCIDevice
    is_guest: bool

    def fits(self, name: str | None) -> bool:
        """Whether it may stay on this driver, or go there."""
        if name is not None and name == self.device.kernel_driver and self.device.gives_vfio:
            return True
        accepted = name is not None and self.backend.accepts_stub(name)
        return accepted and (not self.is_guest or self.backend.is_guest_stub(name))

    @property
    def wanted(self) -> tuple[str, ...]:
        """The backend's stubs that fit."""
        return (
            tuple(name for name in self.backend.stubs if self.fits(name))
            or self.backend.stubs
            or ("a stub driver",)
        )

    def checked(self, name: str) -> str:
        """The backend's choice, or one that its guests can use; a module's name is not judged."""
        useless = self.is_guest and not self.fits(name) and self.backend.accepts_stub(name)
        return self.wanted[0] if useless else name

    def check_asked(self, asked: str | None) -> None:
        """Refuse a stub that was asked for and will not do."""
        if asked is None or (self.fits(asked) and not self._destroys(asked)):
            return
        backend, wanted = self.backend.name, ", ".join(self.wanted)
        if self._destroys(asked):
            raise self.error(
                f"{self.device.name} is handed to guests by its own driver, {self.device.kernel_driver};"
                f" on {asked} it would be gone. Name no stub driver for it"
            )
        if self.backend.accepts_stub(asked):
            raise self.error(
                f"{asked!r} keeps a device from the host, but {backend} cannot hand it to a guest from"
                f" there; wanted {wanted}"
            )
        raise self.error(f"{asked!r} is no stub driver that {backend} accepts; wanted {wanted}")

    def check_unmanaged(self) -> None:
        """Refuse an unmanaged device that was detached to a stub from which no guest can get it."""
        current = self.device.kernel_driver
        if self.is_guest and self.backend.accepts_stub(current):
            raise self.error(
                f"{self.device.name} is unmanaged and on {current}, from where {self.backend.name} cannot"
                f" hand it to a guest; bind it to {self.wanted[0]}, or let hostdev manage it: it is moved"
                " meanwhile, and given back"
            )

    def error(self, message: str) -> NotAssignableError:
        """Build the refusal of a stub."""
        return NotAssignableError(message, device=self.device.name, rule="stub")

    def _destroys(self, asked: str) -> bool:
        return self.device.gives_vfio and asked != self.device.kernel_driver


def find_stub(host: Host, device: str, name: str, module: str, warn: Warn) -> Stub:
    """Find the stub driver of a name: a driver that is there, or one that a module brings.

    Raises NotAssignableError when it is missing, or disabled (saying where). `warn` is called with
    anything odd about the module, or not known of it.
    """
    if host.sysfs.exists(f"{PCI_DRIVERS}/{name}"):
        return Stub(name)
    # The module may be loaded, and have a driver of another name.
    brought = host.modules.drivers(module)
    if brought:
        return Stub(brought[0])
    try:
        found, said = host.modules.find(module)
    except KernelError as error:
        raise _refused(
            device, module, f"and whether the kernel has it cannot be known: {error}; load it yourself, or"
            " name another stub driver", str(error)) from error  # fmt: skip
    if found is False:
        raise _refused(
            device, module, f"which kernel {host.kernel_release} does not have ({said}); install it, load it"
            " yourself where its files are hidden from here, or name another stub driver")  # fmt: skip
    if found is None:
        warn(f"whether kernel {host.kernel_release} has module {module} cannot be known: {said}")
    _check_told(host, device, module, warn)
    return Stub(name, module)


def _check_told(host: Host, device: str, module: str, warn: Warn) -> None:
    """Refuse a module that modprobe or the kernel is told not to load.

    A blacklisted one is not refused: `blacklist` stops its aliases, and `modprobe NAME` loads it anyway
    (modprobe.d(5)).
    """
    told = _configuration(host, device, module)
    if reason := told.disabled(module):
        raise _refused(
            device, module, f"which {reason}; change that, or name another stub driver", reason)  # fmt: skip
    if place := told.blacklisted(module):
        warn(f"{place} blacklists module {module}; it is loaded by its name all the same")
    if place := told.replaced(module):
        warn(f"modprobe runs the command of {place} to load module {module}")


def _configuration(host: Host, device: str, module: str) -> Configuration:
    try:
        return host.modules.configuration
    except KernelError as error:
        raise _refused(
            device, module, f"and what loading it would do cannot be known: {error}; load it yourself, or"
            " name another stub driver", str(error)) from error  # fmt: skip


def _refused(device: str, module: str, why: str, *evidence: str) -> NotAssignableError:
    return NotAssignableError(
        f"{device} needs module {module}, {why}", device=device, rule="stub", evidence=evidence
    )
