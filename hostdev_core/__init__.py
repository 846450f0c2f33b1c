"""hostdev: lend a Linux host's PCI and USB devices to virtual machines, and take them back.

The public names are handed on at their first use (PEP 562): importing the package alone loads
nothing else.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hostdev_core.address import PCIAddress as PCIAddress
    from hostdev_core.address import USBSelector as USBSelector
    from hostdev_core.assignment import Assignment as Assignment
    from hostdev_core.assignment import Returned as Returned
    from hostdev_core.connection import Connection as Connection
    from hostdev_core.context import Context as Context
    from hostdev_core.domain import Domain as Domain
    from hostdev_core.domain import Hostdev as Hostdev
    from hostdev_core.domain import PCIHostdev as PCIHostdev
    from hostdev_core.domain import USBHostdev as USBHostdev
    from hostdev_core.domain import parse_hostdev as parse_hostdev
    from hostdev_core.drift import Drift as Drift
    from hostdev_core.driver import HostdevDriver as HostdevDriver
    from hostdev_core.driver import OpenResult as OpenResult
    from hostdev_core.driver import PrepareFlags as PrepareFlags
    from hostdev_core.driver_table import DriverTable as DriverTable
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
    from hostdev_core.holders import Holder as Holder
    from hostdev_core.hookspecs import Refusal as Refusal
    from hostdev_core.hookspecs import hookimpl as hookimpl
    from hostdev_core.host import Deadlines as Deadlines
    from hostdev_core.host import Host as Host
    from hostdev_core.local_driver import LocalHostdevDriver as LocalHostdevDriver
    from hostdev_core.opening import open_connection as open_connection
    from hostdev_core.owner import UsedBy as UsedBy
    from hostdev_core.pci import PCIDevice as PCIDevice
    from hostdev_core.pci import is_vfio_driver as is_vfio_driver
    from hostdev_core.plan import DevicePlan as DevicePlan
    from hostdev_core.plan import Plan as Plan
    from hostdev_core.record import Found as Found
    from hostdev_core.record import Phase as Phase
    from hostdev_core.record import Record as Record
    from hostdev_core.registry import Registry as Registry
    from hostdev_core.state import HostdevState as HostdevState
    from hostdev_core.state import StateDriver as StateDriver
    from hostdev_core.steps import BackendStep as BackendStep
    from hostdev_core.steps import Step as Step
    from hostdev_core.usb import USBDevice as USBDevice

__version__ = "0.1.0"

_HOMES = {
    "address": "PCIAddress USBSelector",
    "assignment": "Assignment Returned",
    "connection": "Connection",
    "context": "Context",
    "domain": "Domain Hostdev PCIHostdev USBHostdev parse_hostdev",
    "drift": "Drift",
    "driver": "HostdevDriver OpenResult PrepareFlags",
    "driver_table": "DriverTable",
    "errors": "ConnectionClosedError DeviceError DeviceInUseError DeviceNotFoundError"
    " DriverConflictError DuplicateDeviceError GroupNotViableError HostdevError InputError"
    " InvalidAddressError InvalidURIError KernelCrashError KernelError KernelTimeoutError"
    " NoDriverError NotAssignableError NotPermittedError OpenError PluginError ReadOnlyError"
    " ReattachError StateError UnsupportedError VetoError",
    "holders": "Holder",
    "hookspecs": "Refusal hookimpl",
    "host": "Deadlines Host",
    "local_driver": "LocalHostdevDriver",
    "opening": "open_connection",
    "owner": "UsedBy",
    "pci": "PCIDevice is_vfio_driver",
    "plan": "DevicePlan Plan",
    "record": "Found Phase Record",
    "registry": "Registry",
    "state": "HostdevState StateDriver",
    "steps": "BackendStep Step",
    "usb": "USBDevice",
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted([*_NAMES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a type checker must see a typo

    def __getattr__(name):
        """Import a public name from its home."""
        if name not in _NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return __all__
