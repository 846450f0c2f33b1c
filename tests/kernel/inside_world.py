"""A guest's devices, slots and records, and the state that a device must have again when it is back."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import NamedTuple

from hostdev_core.kernel.sysfs import Sysfs

DEVICES = "/sys/bus/pci/devices"


def world() -> dict[str, str]:
    """See world.world."""
    while True:
        try:
            return _world()
        except FileNotFoundError:
            pass  # udev renames a new network interface


def _world() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in os.listdir(DEVICES):
        device = f"{DEVICES}/{name}"
        found[f"{name} driver"] = Sysfs().link(f"bus/pci/devices/{name}/driver") or ""
        found[f"{name} driver_override"] = _text(f"{device}/driver_override")
        found[f"{name} power"] = _text(f"{device}/power/control")
        nets = os.listdir(f"{device}/net") if os.path.exists(f"{device}/net") else []
        found |= {f"{name} address": _text(f"{device}/net/{net}/address") for net in nets}
    ports = (name for name in os.listdir("/sys/bus/usb/devices") if ":" not in name)
    found |= {f"usb {name}": "there" for name in ports if "-" in name}
    slots = Path("/sys/bus/pci/drivers/pciback/slots")
    found |= {
        f"slot {slot}": "there" for slot in (slots.read_text().split() if slots.exists() else ())
    }
    if Path("/proc/xen/capabilities").exists():
        keys = subprocess.run(
            ["xenstore-ls", "-f", "/libxl/pci"], capture_output=True, text=True, check=False
        )
        # libxl leaves an empty key behind for each device that a domain had
        found["libxl"] = "\n".join(k for k in keys.stdout.splitlines() if not k.endswith('= ""'))
    state = Path("/run/hostdev")
    found |= {f"operation {path.name}": path.read_text() for path in state.glob("op/*")}
    if (state / "state.db").exists():
        with contextlib.closing(sqlite3.connect(state / "state.db")) as ledger:
            rows = ledger.execute("SELECT kind, address, phase, stuck FROM records").fetchall()
        found |= {
            f"record {kind} {address}": f"{phase} {stuck}" for kind, address, phase, stuck in rows
        }
    return found


def _text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def differences(wanted: dict[str, str], now: dict[str, str]) -> str:
    """What is not as wanted in a world."""
    names = sorted(name for name in wanted.keys() | now if wanted.get(name) != now.get(name))
    return "; ".join(f"{name}: {now.get(name)}, wanted {wanted.get(name)}" for name in names)


class State(NamedTuple):
    """What a device must be again when it is back."""

    kernel_driver: str | None
    driver_override: str | None
    power_control: str | None


def state(address: str) -> State:
    """A device's state, from sysfs."""
    sysfs, path = Sysfs(), f"bus/pci/devices/{address}"
    override, power = sysfs.read(f"{path}/driver_override"), sysfs.read(f"{path}/power/control")
    return State(sysfs.link(f"{path}/driver"), override, power)
