"""Starts, memory, and whether anything is left over after thousands of calls."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks import tools
from benchmarks.results import Section, Table
from benchmarks.turns import peak, rotated, run, say, timed
from hostdev_core import Connection, Domain, Registry, open_connection
from hostdev_core.simulated import SimulatedHost

CARDS = tuple(f"0000:{bus:02x}:00.0" for bus in range(1, 17))
URI = "qemu:///system"
WALL, CPU, MEMORY = "time", "CPU", "peak memory"
PYTHON = "`python -I -c pass`"
STEPS = 10


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
    with tempfile.TemporaryDirectory(prefix="hostdev-benchmark-") as folder:
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
    """What a process holds while it lends and takes back, again and again."""
    columns = ["after 1%", *(f"{100 * step // STEPS}%" for step in range(1, STEPS + 1))]
    names = ("memory, MB", "open descriptors", "threads", "milliseconds a cycle")
    table = Table(
        f"{cycles:,} cycles in one process", "A card is lent and taken back by one open connection; what the "
        "process holds meanwhile (VmRSS, /proc/self/fd, threads), and how long a cycle takes (median of "
        "those since the column before). Verified: each cycle returns its card, and no record is left.",
        columns, unit="", base_column=columns[0])  # fmt: skip
    say(f"{cycles} cycles")
    with tempfile.TemporaryDirectory(prefix="hostdev-benchmark-") as folder:
        host = small_host(f"{folder}/host")
        registry = Registry.from_entry_points()
        with open_connection(URI, host=host, registry=registry) as conn:
            done = 0
            for number, column in enumerate(columns):
                until = max(1, cycles * number // STEPS if number else cycles // 100)
                taken = [timed(cycle(conn)) for _ in range(until - done)]
                done = until
                host.clear_writes()
                held = holds()
                for name, value in zip(names, held, strict=False):
                    table.add(name, column, value)
                table.add(names[-1], column, *(1e3 * t for t in _middle(taken)))
            assert not conn.get_active_pci_hostdev_list()
            assert not conn.get_inactive_pci_hostdev_list()
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
    """The median alone: the spread of thousands of cycles says nothing."""
    return [sorted(taken)[len(taken) // 2]] if taken else []
