"""DriverContract: what every driver for a Linux host must do, as tests to inherit."""

from hostdev_core.testing.contract_parts.disturbed import Disturbed
from hostdev_core.testing.contract_parts.form import Form
from hostdev_core.testing.contract_parts.hooks import HookOrder
from hostdev_core.testing.contract_parts.opening import Opening
from hostdev_core.testing.contract_parts.refusals import GroupRefusals, Refusals
from hostdev_core.testing.contract_parts.rendering import Rendering
from hostdev_core.testing.contract_parts.round_trips import (
    GroupRoundTrips,
    InactiveList,
    RoundTrips,
)
from hostdev_core.testing.contract_parts.usb import USBDevices
from hostdev_core.testing.contract_parts.write_errors import Faults


class DriverContract(
    Opening,
    RoundTrips,
    GroupRoundTrips,
    InactiveList,
    Refusals,
    GroupRefusals,
    USBDevices,
    Rendering,
    Faults,
    Disturbed,
    HookOrder,
    Form,
):
    """The whole contract; a subclass named `Test...` sets `driver`.

    What the driver declares is what is asked of it: `needs_iommu = False` leaves out the rules of
    IOMMU groups where there are none, `takes_usb = False` wants every USB device refused.

    `uri` is what is opened, without it "SCHEME:///system" of the driver's first scheme; it may hold
    `{root}`, the directory of the simulated host, for a driver that brings its own host. `dom0`
    says whether everything runs in Xen's control domain, without it: where the driver's stub is
    pciback. `make_host` makes an empty machine whose kernel has the driver's stub drivers (override it
    to add what else yours needs), `stub` is the stub driver that the tests find devices on, by default
    the first of `stubs`.
    """
