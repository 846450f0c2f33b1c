"""Plug a network card into a running guest, and pull it out."""

from __future__ import annotations

from . import machines
from .guest import Guest, wait_until
from .world import DEVICES

HOT = machines.FREE_ADDRESS


def plug(guest: Guest, name: str, driver: str = "e1000e") -> None:
    """Plug a network card into the free port, and wait until this driver has it."""
    guest.monitor(f"device_add e1000e,id={name},bus={machines.FREE_PORT},romfile=")
    wait_until(guest, f"[ -e /sys/bus/pci/drivers/{driver}/{HOT} ]; udevadm settle")


def unplug(guest: Guest, name: str) -> None:
    """Pull it out; the kernel takes some seconds."""
    guest.monitor(f"device_del {name}")
    wait_until(guest, f"[ ! -e {DEVICES}/{HOT} ]")
