"""In the guest: let all ways of lending take turns, and verify what each has done.

    python -m benchmarks.inside SPEC    # JSON: see lending.Trial

prints a line of JSON for each measurement: the way, the number of cards, and the seconds there and back
or what went wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from benchmarks import ways
from benchmarks.turns import reason, rotated, timed
from benchmarks.ways import PCI, Way, Writes
from hostdev_core import HostdevError, open_connection

URI = {"vfio-pci": "qemu:///system", "pciback": "xen:///system"}
FLOOR, FLOOR_AT_ONCE = "bare writes, one by one", "bare writes, a thread each"
START = "hostdev --version (start alone)"
PATIENCE = 20.0
"""Seconds in which a card must be where it belongs after a way has said that it is done."""


def main() -> None:
    """Measure as told, and print."""
    spec = json.loads(sys.argv[1])
    stub, driver = spec["stub"], spec["driver"]
    subprocess.run(["modprobe", spec["module"]], check=True)
    with ExitStack() as stack:
        stack.callback(ways.end_libvirtd)
        found = [*_ways(stack, stub, driver, reset=spec["reset"])]
        for way in [*found]:
            print(f"first turn: {way.name}", file=sys.stderr, flush=True)
            problem = _try(way, spec["cards"][:1], stub, driver)
            if "error" in problem:
                tell(way=way.name, cards=0, error=problem["error"])
                found.remove(way)
        for number in range(spec["rounds"]):
            for count in spec["counts"]:
                cards = spec["cards"][:count]
                for way in _order(found, number):
                    tell(way=way.name, cards=count, **_try(way, cards, stub, driver))


def _order(found: Sequence[Way], number: int) -> Iterator[Way]:
    """Whose turn it is in a round. All is told in multiples of the first way, which has more turns."""
    base, *others = found
    for index, place in enumerate(rotated(range(len(others)), number)):
        if index % 3 == 0:
            yield base
        yield others[place]


def tell(**what: Any) -> None:
    """Print a line."""
    print(json.dumps(what), flush=True)


def _ways(stack: ExitStack, stub: str, driver: str, *, reset: bool) -> Iterator[Way]:
    uri = URI[stub]
    writes = Writes(stub, driver, slots=stub == "pciback", reset=reset)
    yield writes.at_once(FLOOR_AT_ONCE)
    yield writes.one_by_one(FLOOR)
    conn = stack.enter_context(open_connection(uri))
    if reset:
        yield ways.resetting("hostdev: a call and a thread each", conn)
        return
    yield ways.library("hostdev: one call", conn)
    worker = stack.enter_context(open_connection(uri, worker=True))
    yield ways.library("hostdev: one call, worker=True", worker)
    yield ways.command("hostdev: the command", uri)
    yield ways.start_of_command(START)
    yield from _others(stub, driver)


def _others(stub: str, driver: str) -> Iterator[Way]:
    if stub == "pciback":
        add, remove = ["xl", "pci-assignable-add"], ["xl", "pci-assignable-remove", "-r"]
        yield ways.each("xl pci-assignable, a call each", [*add, "CARD"], [*remove, "CARD"], str)
        return
    yield from ways.libvirt()
    there, back = ["driverctl", "set-override", "CARD", stub], ["driverctl", "unset-override"]
    yield ways.each("driverctl, a call each", there, [*back, "CARD"], str)
    devbind = os.environ.get("DPDK_DEVBIND", "dpdk-devbind.py")
    bind = [sys.executable, devbind, "-b"] if os.path.exists(devbind) else [devbind, "-b"]
    yield ways.all_in_one("dpdk-devbind, one call", [*bind, stub], [*bind, driver])


def _try(way: Way, cards: Sequence[str], stub: str, driver: str) -> dict[str, Any]:
    """Lend cards and take them back: the seconds of both, or the error after which all are at home again."""
    try:
        way.ready()
        _settle()
        there = timed(lambda: way.lend(cards))
        if not way.name.startswith(START):
            _verify(lambda card: _is_lent(card, stub), cards, f"is not on {stub}")
        _settle()
        back = timed(lambda: way.back(cards))
        _verify(lambda card: _is_home(card, driver), cards, f"is not back on {driver}")
    except (OSError, HostdevError, ExceptionGroup, ValueError, subprocess.SubprocessError) as error:
        for card in cards:
            _bring_home(card, driver)
        return {"error": reason(error)}
    finally:
        _settle()
        way.rest()
    return {"there": there, "back": back}


def _settle() -> None:
    """What udev still does for the one before is not the next one's."""
    subprocess.run(["udevadm", "settle", "-t", "60"], check=False)


def _verify(is_there: Callable[[str], bool], cards: Sequence[str], otherwise: str) -> None:
    """Wait until all cards are where they belong; untimed."""
    end = time.monotonic() + PATIENCE
    for card in cards:
        while not is_there(card):
            if time.monotonic() > end:
                raise ValueError(f"{card} {otherwise}, but on {_driver(card)}")
            time.sleep(0.05)


def _driver(card: str) -> str:
    with suppress(OSError):
        return os.path.basename(os.readlink(f"{PCI}/devices/{card}/driver"))
    return "none"


def _is_lent(card: str, stub: str) -> bool:
    """On the stub, and for VFIO with the node that a hypervisor opens."""
    if _driver(card) != stub:
        return False
    if stub != "vfio-pci":
        return True
    group = os.path.basename(os.readlink(f"{PCI}/devices/{card}/iommu_group"))
    return os.path.exists(f"/dev/vfio/{group}")


def _is_home(card: str, driver: str) -> bool:
    """On its own driver, without an override and without a slot of pciback's."""
    slots = ""
    with suppress(OSError), open(f"{PCI}/drivers/pciback/slots", encoding="ascii") as file:
        slots = file.read()
    with open(f"{PCI}/devices/{card}/driver_override", encoding="ascii") as file:
        override = file.read().strip()
    return _driver(card) == driver and override == "(null)" and card not in slots


def _bring_home(card: str, driver: str) -> None:
    """After a failure: by hand, whatever was done."""
    with suppress(HostdevError, ExceptionGroup), open_connection() as conn:
        conn.recover()
        conn.reattach_hostdevs("benchmark")
    with suppress(HostdevError, ExceptionGroup), open_connection() as conn:
        conn.reattach_device(card)
    for path, value in (
        (f"devices/{card}/driver/unbind", card),
        ("drivers/pciback/remove_slot", card),
        (f"devices/{card}/driver_override", "\n"),
        (f"drivers/{driver}/bind", card),
    ):
        if not (path.endswith("/unbind") and _driver(card) == driver):
            with suppress(OSError):
                ways.write(f"{PCI}/{path}", value)


if __name__ == "__main__":
    main()
