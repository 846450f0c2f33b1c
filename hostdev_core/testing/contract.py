"""DriverContract: what every driver for a Linux host must do, as tests to inherit."""

from hostdev_core.testing.disturbed import Disturbed
from hostdev_core.testing.faults import Faults
from hostdev_core.testing.hooks import HookOrder
from hostdev_core.testing.opening import Opening
from hostdev_core.testing.refusals import GroupRefusals, Refusals
from hostdev_core.testing.round_trips import GroupRoundTrips, InactiveList, RoundTrips
from hostdev_core.testing.usb import USBDevices


class DriverContract(
    Opening,
    RoundTrips,
    GroupRoundTrips,
    InactiveList,
    Refusals,
    GroupRefusals,
    USBDevices,
    Faults,
    Disturbed,
    HookOrder,
):
    """The whole contract; a subclass named `Test...` sets `driver` and `uri`.

    `uri` may hold `{root}`, the directory of the simulated host, for a driver that brings its own
    host. `dom0 = True` runs everything in Xen's control domain. `make_host` makes an empty machine
    (override it to add the drivers that yours needs), `stub` is the stub driver that the tests find
    devices on, by default the first of the driver's `stubs`.
    """
