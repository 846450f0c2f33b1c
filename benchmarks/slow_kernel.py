"""A kernel that takes the time that real hardware takes: whether many devices take it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.results import Section, Table
from benchmarks.turns import in_memory, rotated, say, timed
from hostdev_core import Connection, Domain, Registry, open_connection
from hostdev_core.simulated import SimulatedHost

UNBIND, BIND, RESET, SLOWEST = 0.030, 0.105, 0.130, 1.1
"""Seconds, as measured on real machines: unbind and bind of a network card's driver, a function-level
reset, and the unbind of a physical function whose driver takes its virtual functions down."""
URI = "qemu:///system"
Cards = Sequence[str]
FLOOR = "the slowest device alone (the delays' sum)"
BARE = "the bare writes there, a thread each"


def measure(counts: Sequence[int], rounds: int) -> Section:
    """The section."""
    columns = ["1 device" if count == 1 else f"{count} devices" for count in counts]
    alike = Table(
        "All alike", f"{UNBIND * 1e3:g} ms for each unbind, {BIND * 1e3:g} ms for each bind: "
        f"{(UNBIND + BIND) * 1e3:g} ms there and as much back.", columns, base_row=FLOOR)  # fmt: skip
    reset = Table(
        "Detach and reset", f"The same there, and {RESET * 1e3:g} ms for a function-level reset; these calls "
        "take one device each, and a thread makes each of them.", columns, base_row=FLOOR)  # fmt: skip
    slowest = Table(
        "A slow one among them", f"The unbind of one device takes {SLOWEST:g} s: the others must not wait "
        "for it one after the other.", columns, base_row=FLOOR)  # fmt: skip
    for number in range(rounds):
        for column in rotated(columns, number):
            count = counts[columns.index(column)]
            say(f"slow kernel: {column}, round {number + 1}")
            _fill(alike, column, count, prepare, UNBIND + BIND)
            _fill(slowest, column, count, prepare, SLOWEST + BIND, slow=True)
            _fill(reset, column, count, detach_and_reset, UNBIND + BIND + RESET)
    return Section(
        "Hardware that takes its time",
        "A simulated host whose writes to sysfs take as long as real hardware was seen to take. What many "
        "devices take, in multiples of what the kernel takes for the slowest of them alone: 1.00 is a tool "
        "that costs nothing and keeps nobody waiting. The simulated kernel is written in Python, and runs in "
        "the same process: what it takes itself shows in the bare writes. Verified: every device is on "
        "vfio-pci, and back.",
        [alike, slowest, reset],
    )


def _fill(
    table: Table, column: str, count: int, call: Callable[[Connection, Cards], float], floor: float,
    *, slow: bool = False,
) -> None:  # fmt: skip
    with in_memory() as folder:
        host, cards = slow_host(f"{folder}/host", count, slow=slow)
        with open_connection(URI, host=host, registry=Registry.from_entry_points()) as conn:
            there = call(conn, cards)
            _verify(host, cards, "vfio-pci")
            back = timed(lambda: give_back(conn, cards))
            _verify(host, cards, "e1000e")
            if table.title == "All alike":
                table.add(BARE, column, bare_writes(host, cards))
    what = "detach + reset" if call is detach_and_reset else "prepare"
    table.add(FLOOR, column, floor)
    table.add(what, column, there)
    if table.title == "All alike":
        table.add("reattach", column, back)


def slow_host(path: str, count: int, *, slow: bool) -> tuple[SimulatedHost, list[str]]:
    """A host with so many network cards, each in a group of its own, and a kernel that takes its time."""
    host = SimulatedHost.create(path)
    cards = [f"0000:{bus:02x}:00.0" for bus in range(1, count + 1)]
    for card in cards:
        host.add_pci(card, kernel_driver="e1000e")
    often = 1 << 20
    if slow:
        host.on_write("*/drivers/e1000e/unbind", value=cards[0], delay=SLOWEST, count=1)
    host.on_write("*/unbind", delay=UNBIND, count=often)
    host.on_write("*/bind", delay=BIND, count=often)
    host.on_write("*/drivers_probe", delay=BIND, count=often)
    host.on_write("*/reset", delay=RESET, count=often)
    return host, cards


def bare_writes(host: SimulatedHost, cards: Cards) -> float:
    """Bind the cards to the stub by nothing but writes, a thread for each: what the simulation takes."""
    devices, drivers = "bus/pci/devices", "bus/pci/drivers"

    def one(card: str) -> None:
        host.sysfs.write(f"{devices}/{card}/driver_override", "vfio-pci")
        host.sysfs.write(f"{drivers}/e1000e/unbind", card)
        host.sysfs.write(f"{drivers}/vfio-pci/bind", card)

    with ThreadPoolExecutor(len(cards)) as pool:
        taken = timed(lambda: [*pool.map(one, cards)])
    _verify(host, cards, "vfio-pci")
    return taken


def prepare(conn: Connection, cards: Cards) -> float:
    """All of them in one call."""
    return timed(lambda: conn.prepare_hostdevs(Domain("benchmark", cards)))


def detach_and_reset(conn: Connection, cards: Cards) -> float:
    """Each of them from a thread of its own."""

    def one(card: str) -> None:
        conn.detach_device(card)
        conn.reset_device(card)

    with ThreadPoolExecutor(len(cards)) as pool:
        return timed(lambda: [*pool.map(one, cards)])


def give_back(conn: Connection, cards: Cards) -> None:
    """All of them, whoever has them."""
    if not conn.reattach_hostdevs("benchmark"):
        with ThreadPoolExecutor(len(cards)) as pool:
            [*pool.map(conn.reattach_device, cards)]


def _verify(host: SimulatedHost, cards: Cards, driver: str) -> None:
    for card in cards:
        link = Path(host.root, "sys/bus/pci/devices", card, "driver")
        assert link.resolve().name == driver, f"{card} is on {link.resolve().name}"
