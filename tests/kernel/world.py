"""What the tests look at, and what they call, in a guest."""

from __future__ import annotations

import base64
import itertools
import pickle
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from . import inside, inside_server, inside_world
from .guest import Guest, wait_until
from .guest_command import Command

P = ParamSpec("P")
T = TypeVar("T")

DEVICES = "/sys/bus/pci/devices"
CALL_TIMEOUT = 400.0
_numbers = itertools.count(1)
_agents: dict[int, Command] = {}


def world(guest: Guest) -> dict[str, str]:
    """Drivers, overrides, power control and MAC addresses of all PCI devices, the USB devices, pciback's
    slots, libxl's keys, and the ledger's records with their operations.

    Must not be called while a device hangs.
    """
    return call(guest, inside_world.world)


def settled(guest: Guest, before: dict[str, str], *, timeout: float = 120.0) -> dict[str, str]:
    """The guest's world once it is as BEFORE, or what it is after TIMEOUT seconds.

    The kernel takes its time to find USB devices and network interfaces again.
    """
    end = time.monotonic() + timeout
    while (now := world(guest)) != before and time.monotonic() < end:
        time.sleep(1)
    return now


def kernel_drivers(guest: Guest, *addresses: str) -> list[str]:
    """The kernel driver of each device; "" for none."""
    links = " ".join(f"{DEVICES}/{address}/driver" for address in addresses)
    done = guest.run(f'for link in {links}; do echo "$(readlink $link)"; done')
    return [line.rpartition("/")[2] for line in done.stdout.split("\n")[: len(addresses)]]


def read(guest: Guest, address: str, attribute: str) -> str:
    """An attribute of a PCI device."""
    return guest.check(f"cat {DEVICES}/{address}/{attribute}").rstrip("\n")


def write(guest: Guest, address: str, attribute: str, value: str) -> None:
    """Write an attribute of a PCI device, as an administrator does."""
    guest.check(f"echo {shlex.quote(value)} > {DEVICES}/{address}/{attribute}")


def mac_address(guest: Guest, address: str) -> str:
    """The MAC address of the network interface that a PCI device has; "" without an interface."""
    return guest.run(f"udevadm settle; cat {DEVICES}/{address}/net/*/address").stdout.strip()


def hostdev(guest: Guest, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the `hostdev` command in a process that has loaded its modules already.

    Guest.hostdev starts a Python each time, which takes an emulated machine seconds.
    """
    return call(guest, inside.command, *words)


def call(guest: Guest, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of one of the inside modules in a process of the guest; its result, or what it raised.

    AssertionError when that process ended without an answer.
    """
    agent, reply = _agent(guest), f"/run/inside-{next(_numbers)}"
    line = f"{reply} {_packed(function, *args, **kwargs)}"
    answer = guest.check(
        f"mkfifo {reply}; echo {line} > {inside_server.DOOR}; head -n 1 < {reply}; rm {reply}",
        timeout=CALL_TIMEOUT,
    )
    assert answer, f"{function.__name__} has ended without an answer: {agent.stderr[-2000:]}"
    value: object = pickle.loads(base64.b64decode(answer))
    if isinstance(value, Exception):
        raise value
    return cast("T", value)


def _packed(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> str:
    module = f"tests.kernel.{function.__module__.rpartition('.')[2]}"
    return base64.b64encode(pickle.dumps((module, function.__name__, args, kwargs))).decode()


def _agent(guest: Guest) -> Command:
    """The process of the guest that forks one for each call."""
    if id(guest) not in _agents:
        source = "from tests.kernel import inside_server; inside_server.serve()"
        agent = guest.start(guest.python_command(source))
        wait_until(guest, f"[ -p {inside_server.DOOR} ]", timeout=180)
        _agents[id(guest)] = agent
    return _agents[id(guest)]
