"""What the tests call in the guest, each time in a process of its own: see world.call."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import pickle
import sqlite3
import subprocess
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from hostdev_core import (
    Assignment,
    Deadlines,
    Domain,
    Drift,
    Host,
    Hostdev,
    HostdevError,
    PCIHostdev,
    PrepareFlags,
    Registry,
    open_connection,
)
from hostdev_core.cli import MODULES
from hostdev_core.cli import main as run_command
from hostdev_core.inventory.users import find_users
from hostdev_core.kernel.processes import Identity, Search, find_identity
from hostdev_core.kernel.sysfs import Sysfs
from hostdev_core.model.record import Record

QEMU = "qemu:///system"
DOOR = "/run/inside"
DEVICES = "/sys/bus/pci/devices"
Devices = Sequence["str | Hostdev"]


def serve() -> None:
    """Load everything, and answer each line of DOOR ("REPLY CALL") from a forked process."""
    Registry.from_entry_points()
    for module in {*(f"commands.{name}" for name in MODULES.values()), "parser"}:
        import_module(f"hostdev_core.cli.{module}")
    if os.path.exists(DOOR):
        os.unlink(DOOR)
    os.mkfifo(DOOR)
    with open(os.open(DOOR, os.O_RDWR), encoding="ascii") as lines:  # both ends: it never ends
        for line in lines:
            reply, packed = line.split()
            if os.fork() == 0:
                with open(reply, "w", encoding="ascii") as file:
                    file.write(f"{_answer(packed)}\n")
                os._exit(0)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _answer(packed: str) -> str:
    """Make a call; its result, or what it raised."""
    module, name, args, kwargs = pickle.loads(base64.b64decode(packed))
    value: object
    try:
        value = getattr(import_module(module), name)(*args, **kwargs)
    except Exception as error:
        value = error
    return base64.b64encode(pickle.dumps(value)).decode()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the `hostdev` command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


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


def prepare(
    name: str,
    devices: Devices,
    flags: PrepareFlags = PrepareFlags.NONE,
    *,
    uri: str | None = None,
) -> tuple[Assignment, ...]:
    """Lend devices to a domain."""
    with open_connection(uri) as conn:
        return conn.prepare_hostdevs(Domain(name, devices), flags)


def reattach(name: str, *, uri: str | None = None) -> tuple[str, ...]:
    """Give a domain's devices back."""
    with open_connection(uri) as conn:
        return conn.reattach_hostdevs(name)


def give_everything_back() -> None:
    """After a test that failed: leave as little as can be to the next one."""
    with contextlib.suppress(HostdevError), open_connection() as conn:
        conn.recover()
    for record in records().values():
        with contextlib.suppress(HostdevError):
            if record.owner is None:
                with open_connection() as conn:
                    conn.reattach_device(record.address)
            else:
                reattach(record.owner.domain, uri=record.owner.uri)


def recover() -> tuple[str, ...]:
    """Undo or finish what dead operations left."""
    with open_connection() as conn:
        return conn.recover()


def reload() -> tuple[Drift, ...]:
    """What records no longer tell the truth."""
    with open_connection(read_only=True) as conn:
        return conn.reload()


def records() -> dict[str, Record]:
    """The ledger, by address."""
    return {record.address: record for record in Host().ledger.records()}


class Lists(NamedTuple):
    """What the lists say: addresses, and of whom."""

    active: dict[str, str]
    inactive: list[str]
    usb: dict[str, str]


def lists(*, uri: str | None = None) -> Lists:
    """The three lists of the in-use state."""
    with open_connection(uri, read_only=True) as conn:
        active = {d.name: d.used_by for d in conn.get_active_pci_hostdev_list()}
        usb = {d.name: d.used_by for d in conn.get_active_usb_hostdev_list()}
        inactive = [d.name for d in conn.get_inactive_pci_hostdev_list()]
    return Lists(
        {name: used.domain for name, used in active.items() if used},
        inactive,
        {name: used.domain for name, used in usb.items() if used},
    )


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


# A kernel that does not return.


class Unguarded(Host):
    """A machine whose holder guard is slipped past: each group's node opens, whoever has it."""

    def open_node(self, path: str) -> int:
        del path
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def is_node(self, known: Identity, number: str | None) -> bool:
        del known, number
        return True


def reattach_unguarded(name: str, seconds: float) -> tuple[str, ...]:
    """Give devices back although a process holds them; the kernel has so long for the unbind."""
    host = Unguarded(deadlines=Deadlines(unbind=seconds))
    with open_connection(QEMU, host=host, worker=True) as conn:
        return conn.reattach_hostdevs(name)


def users(address: str) -> tuple[str, ...]:
    """Who uses a device, as it is told of one whose kernel does not return."""
    return find_users(Host(), address)


def seen(*nodes: str) -> Search:
    """Who has these nodes open, and what of that cannot be seen."""
    known = (find_identity(node) for node in nodes)
    return Host().search_openers({each for each in known if each is not None})


# Round trips.


class Trip(NamedTuple):
    """A device before it was lent, while it was, and afterwards; who was on the inactive list last."""

    before: State
    lent: State
    after: State
    inactive: list[str]


FOUND = {
    "on its driver": ("HOME", None),
    "without a driver": (None, None),
    "with an override": ("HOME", "HOME"),
    "driverless with an override": (None, "HOME"),
    "on the stub": ("STUB", "STUB"),
    "on the stub without an override": ("STUB", None),
    "with power control": ("HOME", None),
    "unmanaged, on the stub": ("STUB", "STUB"),
}
"""Where a device may be found, and the text of its driver_override."""


def round_trips(address: str, stub: str, *, uri: str | None = None) -> dict[str, Trip]:
    """Lend a device and take it back from every state that it may be found in.

    It must be on its host driver, without a driver_override, and is left so.
    """
    names = {"HOME": state(address).kernel_driver, "STUB": stub}
    trips: dict[str, Trip] = {}
    for found, (driver, override) in FOUND.items():
        _put(address, names.get(driver or ""), names.get(override or ""))
        power = "auto" if found == "with power control" else "on"
        Sysfs().write(f"bus/pci/devices/{address}/power/control", power)
        trips[found] = _trip(address, uri, managed=not found.startswith("unmanaged"))
    _put(address, names["HOME"], None)
    return trips


def _trip(address: str, uri: str | None, *, managed: bool) -> Trip:
    before = state(address)
    with open_connection(uri) as conn:
        hostdev = PCIHostdev(address=address, managed=managed)
        conn.prepare_hostdevs(Domain("trip", [hostdev]))
        lent = state(address)
        conn.reattach_hostdevs("trip")
        inactive = [device.name for device in conn.get_inactive_pci_hostdev_list()]
        after = state(address)
        for name in inactive:
            conn.reattach_device(name)
    return Trip(before, lent, after, inactive)


def _put(address: str, driver: str | None, override: str | None) -> None:
    """Bind a device by plain writes."""
    sysfs, path = Sysfs(), f"bus/pci/devices/{address}"
    if sysfs.exists(f"{path}/driver"):
        sysfs.write(f"{path}/driver/unbind", address)
    if address in (sysfs.read("bus/pci/drivers/pciback/slots") or "").split():
        sysfs.write("bus/pci/drivers/pciback/remove_slot", address)
    sysfs.write(f"{path}/driver_override", f"{driver or ''}\n")
    if driver is not None:
        sysfs.write(f"bus/pci/drivers/{driver}/bind", address)
    sysfs.write(f"{path}/driver_override", f"{override or ''}\n")


def run_facts(lists: Iterable[str], address: str) -> dict[str, tuple[list[object], list[object]]]:
    """What each of the facts of these lists returned, and what is expected."""
    from tests.kernel import facts

    home = state(address).kernel_driver or ""
    every: list[facts.Fact] = [fact for name in lists for fact in getattr(facts, name)]
    return {fact.name: (fact.run(Sysfs(), address, home), fact.expected_here()) for fact in every}
