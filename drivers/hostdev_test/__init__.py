"""Simulated hosts: `test:///default` (a fresh one), `test:///FILE` (a fresh one, as captured) and
`test:///DIR` (a lasting one).
"""

from hostdev_core import HostdevDriver, hookimpl
from hostdev_test.driver import SimulatedDriver as SimulatedDriver


@hookimpl
def hostdev_drivers() -> list[HostdevDriver]:
    """Return the driver for simulated hosts."""
    return [SimulatedDriver()]
