"""Starts, memory, and whether anything is left over after thousands of calls."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from benchmarks import tools
from benchmarks.results import Section, Table
from benchmarks.turns import in_memory, peak, rotated, run, say, timed
from hostdev_core import Connection, Domain, Registry, open_connection
from hostdev_core.simulated import SimulatedHost

CARDS = tuple(f"0000:{bus:02x}:00.0" for bus in range(1, 17))
URI = "qemu:///system"
WALL, CPU, MEMORY = "time", "CPU", "peak memory"
PYTHON = "`python -I -c pass`"
STEPS = 10
ROOT = Path(__file__).resolve().parents[1]


def measure(cycles: int, rounds: int) -> Section:
    """The section."""
    return Section(
        "Starts, memory, and thousands of calls",
        "On a simulated host with 16 network cards. Peak memory is the greatest resident set of the process "
        "(ru_maxrss), of a run of its own.",
        [starts(rounds), many_cycles(cycles)],
    )


def starts(rounds: int) -> Table:
    """What a command costs, and what of it is Python's."""
    table = Table(
        "Commands", "Each is a process of its own, with Python's compiled files there as after an "
        "installation. Verified: exit code 0.", [WALL, CPU, MEMORY],
        base_row=PYTHON, units={MEMORY: "MB"})  # fmt: skip
    with in_memory() as folder:
        host = small_host(f"{folder}/host")
        words = commands(str(host.root))
        env = {"PYTHONPYCACHEPREFIX": f"{folder}/compiled", "PYTHONDONTWRITEBYTECODE": ""}
        for one in words.values():
            run(one, env)
        say(f"commands: {rounds} rounds")
        for number in range(rounds):
            # By two: what is prepared is given back next.
            for name in rotated([*words], 2 * number):
                taken = run(words[name], env)
                table.add(name, WALL, taken.wall)
                table.add(name, CPU, taken.cpu)
        for name, one in words.items():
            table.add(name, MEMORY, peak(one, env))
    return table


def commands(root: str) -> Mapping[str, Sequence[str]]:
    """What is started, in pairs."""
    hostdev = [tools.hostdev(), "--host", root]
    return {
        PYTHON: [sys.executable, "-I", "-c", "pass"],
        "`python -c 'import hostdev_core'`": [sys.executable, "-c", "import hostdev_core"],
        "`hostdev --version`": [tools.hostdev(), "--version"],
        "`hostdev list`": [*hostdev, "list"],
        "`hostdev prepare`, 16 cards": [*hostdev, "prepare", "vm1", *CARDS],
        "`hostdev reattach`, 16 cards": [*hostdev, "reattach", "vm1"],
        "`hostdev plan`, 16 cards": [*hostdev, "plan", "vm1", *CARDS],
        "`hostdev status`": [*hostdev, "status"],
    }


def small_host(path: str) -> SimulatedHost:
    """A host with 16 network cards, each in a group of its own."""
    host = SimulatedHost.create(path)
    for card in CARDS:
        host.add_pci(card, kernel_driver="e1000e")
    return host


class Held(NamedTuple):
    """What a process holds."""

    memory: float
    descriptors: int
    threads: int


def many_cycles(cycles: int) -> Table:
    """What a process of its own holds while it lends and takes back, again and again."""
    say(f"{cycles} cycles")
    words = [sys.executable, "-m", "benchmarks.costs", str(cycles)]
    done = subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    return Table(**json.loads(done.stdout))


def cycles_here(cycles: int) -> Table:
    """The same in this process."""
    columns = ["after 1%", *(f"{100 * step // STEPS}%" for step in range(1, STEPS + 1))]
    names = ("memory, MB", "open descriptors", "threads", "milliseconds a cycle")
    table = Table(
        f"{cycles:,} cycles in one process", "A card is lent and taken back by one open connection of a "
        "fresh process; what that holds meanwhile (VmRSS, /proc/self/fd, threads), and how long a cycle "
        "takes (median of those since the column before). Verified: each cycle returns its card, and no "
        "record is left.", columns, unit="", base_column=columns[0])  # fmt: skip
    with in_memory() as folder:
        host, done = small_host(f"{folder}/host"), 0
        with open_connection(URI, host=host, registry=Registry.from_entry_points()) as conn:
            for number, column in enumerate(columns):
                until = max(1, cycles * number // STEPS if number else cycles // 100)
                taken = [timed(cycle(conn)) for _ in range(until - done)]
                done = until
                host.clear_writes()
                for name, value in zip(names, (*holds(), *_middle(taken)), strict=False):
                    table.add(name, column, value)
            left = conn.get_active_pci_hostdev_list() + conn.get_inactive_pci_hostdev_list()
            assert not left, left
    return table


def cycle(conn: Connection) -> Callable[[], None]:
    """One loan and its return."""

    def trip() -> None:
        conn.prepare_hostdevs(Domain("vm1", CARDS[:1]))
        returned = conn.reattach_hostdevs("vm1")
        assert tuple(returned) == CARDS[:1], returned

    return trip


def holds() -> Held:
    """What this process holds now."""
    with open("/proc/self/status", encoding="ascii") as file:
        (size,) = (line.split()[1] for line in file if line.startswith("VmRSS:"))
    return Held(int(size) / 1024, len(os.listdir("/proc/self/fd")) - 1, threading.active_count())


def _middle(taken: Sequence[float]) -> list[float]:
    """The median alone, in milliseconds: the spread of thousands of cycles says nothing."""
    return [1e3 * statistics.median(taken)] if taken else []


if __name__ == "__main__":
    print(json.dumps(asdict(cycles_here(int(sys.argv[1])))))
