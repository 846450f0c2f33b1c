"""Refuses the devices that the host itself lives on: its disks, its network cards, its console.

It brings no driver, so every connection asks it. It only looks, at /proc and /sys of the
connection's host, and starts no process. What it has to read and cannot makes it raise: that refuses.
"""

from collections.abc import Sequence

from hostdev_core import Connection, Device, Refusal, hookimpl
from hostdev_guard.check import refusals
from hostdev_guard.rules import REASONS


class GuardPlugin:
    """What refuses, and by which rules."""

    @hookimpl
    def hostdev_rules(self) -> Sequence[str]:
        """The names of the rules."""
        return (*REASONS,)

    @hookimpl
    def hostdev_check(self, conn: Connection, devices: Sequence[Device]) -> list[Refusal]:
        """A refusal for each device and rule, with what stands on the device as evidence."""
        return refusals(conn.host, devices)


plugin = GuardPlugin()
