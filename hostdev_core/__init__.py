"""hostdev: lend a Linux host's PCI and USB devices to virtual machines, and take them back.

The public names are handed on at their first use (PEP 562): importing the package alone loads
nothing else.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.connection import Connection as Connection
    from hostdev_core.driver import HostdevDriver as HostdevDriver
    from hostdev_core.driver import OpenResult as OpenResult
    from hostdev_core.errors import ConnectionClosedError as ConnectionClosedError
    from hostdev_core.errors import DeviceError as DeviceError
    from hostdev_core.errors import DeviceInUseError as DeviceInUseError
    from hostdev_core.errors import DeviceNotFoundError as DeviceNotFoundError
    from hostdev_core.errors import DriverConflictError as DriverConflictError
    from hostdev_core.errors import DuplicateDeviceError as DuplicateDeviceError
    from hostdev_core.errors import GroupNotViableError as GroupNotViableError
    from hostdev_core.errors import HostdevError as HostdevError
    from hostdev_core.errors import InputError as InputError
    from hostdev_core.errors import InvalidAddressError as InvalidAddressError
    from hostdev_core.errors import InvalidURIError as InvalidURIError
    from hostdev_core.errors import KernelCrashError as KernelCrashError
    from hostdev_core.errors import KernelError as KernelError
    from hostdev_core.errors import KernelTimeoutError as KernelTimeoutError
    from hostdev_core.errors import NoDriverError as NoDriverError
    from hostdev_core.errors import NotAssignableError as NotAssignableError
    from hostdev_core.errors import NotPermittedError as NotPermittedError
    from hostdev_core.errors import OpenError as OpenError
    from hostdev_core.errors import PluginError as PluginError
    from hostdev_core.errors import ReadOnlyError as ReadOnlyError
    from hostdev_core.errors import ReattachError as ReattachError
    from hostdev_core.errors import StateError as StateError
    from hostdev_core.errors import UnsupportedError as UnsupportedError
    from hostdev_core.errors import VetoError as VetoError
    from hostdev_core.hookspecs import hookimpl as hookimpl
    from hostdev_core.host import Host as Host
    from hostdev_core.inventory.drift import Drift as Drift
    from hostdev_core.inventory.state import HostdevState as HostdevState
    from hostdev_core.inventory.state import StateDriver as StateDriver
    from hostdev_core.kernel.processes import Holder as Holder
    from hostdev_core.local_driver import LocalHostdevDriver as LocalHostdevDriver
    from hostdev_core.model.address import PCIAddress as PCIAddress
    from hostdev_core.model.address import USBSelector as USBSelector
    from hostdev_core.model.assignment import Assignment as Assignment
    from hostdev_core.model.assignment import Returned as Returned
    from hostdev_core.model.context import Context as Context
    from hostdev_core.model.device import Device as Device
    from hostdev_core.model.device import PCIDevice as PCIDevice
    from hostdev_core.model.device import USBDevice as USBDevice
    from hostdev_core.model.device import UsedBy as UsedBy
    from hostdev_core.model.device import is_vfio_driver as is_vfio_driver
    from hostdev_core.model.domain import Domain as Domain
    from hostdev_core.model.domain import Hostdev as Hostdev
    from hostdev_core.model.domain import PCIHostdev as PCIHostdev
    from hostdev_core.model.domain import PrepareFlags as PrepareFlags
    from hostdev_core.model.domain import USBHostdev as USBHostdev
    from hostdev_core.model.domain import parse_hostdev as parse_hostdev
    from hostdev_core.model.explanation import Explanation as Explanation
    from hostdev_core.model.explanation import Reason as Reason
    from hostdev_core.model.explanation import Resetting as Resetting
    from hostdev_core.model.plan import BackendStep as BackendStep
    from hostdev_core.model.plan import DevicePlan as DevicePlan
    from hostdev_core.model.plan import Plan as Plan
    from hostdev_core.model.plan import Step as Step
    from hostdev_core.model.record import Found as Found
    from hostdev_core.model.record import Phase as Phase
    from hostdev_core.model.record import Record as Record
    from hostdev_core.model.rulebook import Refusal as Refusal
    from hostdev_core.opening import open_connection as open_connection
    from hostdev_core.registry.driver_table import DriverTable as DriverTable
    from hostdev_core.registry.registry import Registry as Registry
    from hostdev_core.runtime.deadlines import Deadlines as Deadlines
    from hostdev_core.watching.events import Event as Event
    from hostdev_core.watching.events import EventKind as EventKind
    from hostdev_core.watching.watch import Watch as Watch

__version__ = "0.1.0"

_HOMES = {
    "model.address": "PCIAddress USBSelector",
    "model.assignment": "Assignment Returned",
    "connection": "Connection",
    "model.context": "Context",
    "model.domain": "Domain Hostdev PCIHostdev PrepareFlags USBHostdev parse_hostdev",
    "inventory.drift": "Drift",
    "model.explanation": "Explanation Reason Resetting",
    "driver": "HostdevDriver OpenResult",
    "registry.driver_table": "DriverTable",
    "errors": "ConnectionClosedError DeviceError DeviceInUseError DeviceNotFoundError"
    " DriverConflictError DuplicateDeviceError GroupNotViableError HostdevError InputError"
    " InvalidAddressError InvalidURIError KernelCrashError KernelError KernelTimeoutError"
    " NoDriverError NotAssignableError NotPermittedError OpenError PluginError ReadOnlyError"
    " ReattachError StateError UnsupportedError VetoError",
    "kernel.processes": "Holder",
    "hookspecs": "hookimpl",
    "model.rulebook": "Refusal",
    "host": "Host",
    "runtime.deadlines": "Deadlines",
    "local_driver": "LocalHostdevDriver",
    "opening": "open_connection",
    "model.device": "Device PCIDevice USBDevice UsedBy is_vfio_driver",
    "model.plan": "BackendStep DevicePlan Plan Step",
    "model.record": "Found Phase Record",
    "registry.registry": "Registry",
    "inventory.state": "HostdevState StateDriver",
    "watching.events": "Event EventKind",
    "watching.watch": "Watch",
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted([*_NAMES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a type checker must see a typo

    def __getattr__(name):
        """Import a public name from its home."""
        if name not in _NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value  # found without this function from now on
        return value

    def __dir__():
        return __all__
