"""The ledger: what claims, questions and releases cost beside many records, and of many processes."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier

from benchmarks import tools
from benchmarks.results import Section, Table
from benchmarks.turns import in_memory, run, say, timed, turns
from hostdev_core import (
    Connection,
    DeviceInUseError,
    Domain,
    PCIHostdev,
    Registry,
    open_connection,
)
from hostdev_core.simulated import SimulatedHost

CONTROLLER, NIC, CARD = "0000:00:14.0", "0000:01:00.0", "0000:02:00.0"
FREE, TAKEN = "1-1", "1-2"
URI = "qemu:///system"
SECONDS = 4.0
"""How long the processes of a crowd go on."""


def measure(sizes: Sequence[int], crowds: Sequence[int], rounds: int) -> Section:
    """The section: many records, many processes."""
    return Section(
        "Bookkeeping",
        "On a simulated host, through the API of an open connection. A card that was detached before is "
        "lent and released (unmanaged): nothing is written to the kernel for it, so this is what looking, "
        "claiming, recording and releasing cost. For a USB stick nothing is written either, but all "
        "processes of the machine are searched for one that has it open.",
        [by_records(sizes, rounds), by_processes(crowds, max(1, rounds // 3))],
    )


def by_records(sizes: Sequence[int], rounds: int) -> Table:
    """What a call costs beside this many records."""
    columns = [f"{size:,} records" for size in sizes]
    table = Table(
        "Beside many records",
        "The other records are lent cards of domains that the simulated host has not got: no host has a "
        "hundred thousand devices. Verified: what was lent is returned; what is taken is refused, with its "
        "owner; `status` has every record.",
        columns,
        base_column=columns[0],
    )
    with in_memory() as folder:
        hosts = {column: host_with(f"{folder}/{size}", size)
                 for column, size in zip(columns, sizes, strict=True)}  # fmt: skip
        for name, call in CALLS.items():
            say(f"{name}: {', '.join(columns)}")
            conns = {column: connect(host) for column, host in hosts.items()}
            works = {column: timer(call, conn) for column, conn in conns.items()}
            for column, taken in turns(works, rounds).items():
                table.add(name, column, *taken)
            for conn in conns.values():
                conn.close()
        for column, taken in turns({c: status(h) for c, h in hosts.items()}, rounds).items():
            table.add("`hostdev status --json`", column, *taken)
    return table


def connect(host: SimulatedHost) -> Connection:
    """A connection without the plugins that do not come with hostdev."""
    return open_connection(URI, host=host, registry=Registry.from_entry_points())


def timer(call: Callable[[Connection], None], conn: Connection) -> Callable[[], float]:
    """A work that takes the time of a call."""
    return lambda: timed(lambda: call(conn))


def card_trip(conn: Connection, card: str = CARD) -> None:
    """Claim, activate, release a card that is detached."""
    name = f"vm of {card}"
    conn.prepare_hostdevs(Domain(name, [PCIHostdev(address=card, managed=False)]))
    returned = conn.reattach_hostdevs(name)
    assert tuple(returned) == (card,), returned


def stick_trip(conn: Connection) -> None:
    """The same with a USB stick."""
    conn.prepare_hostdevs(Domain("vm of a stick", [FREE]))
    returned = conn.reattach_hostdevs("vm of a stick")
    assert tuple(returned) == (FREE,), returned


def refused(conn: Connection) -> None:
    """Ask for what another domain has."""
    try:
        conn.prepare_hostdevs(Domain("another", [TAKEN]))
    except DeviceInUseError as error:
        if error.used_by is not None:
            return
    raise AssertionError(f"{TAKEN} was lent twice")


def of_domain(conn: Connection) -> None:
    """Ask for the devices of one domain."""
    (device,) = conn.get_domain_active_usb_hostdev_list("taker")
    assert device.name == TAKEN, device


CALLS: Mapping[str, Callable[[Connection], None]] = {
    "claim, activate, release: a card": card_trip,
    "claim, activate, release: a USB stick": stick_trip,
    "in-use check: a prepare that is refused": refused,
    "what a domain has": of_domain,
}


def status(host: SimulatedHost) -> Callable[[], float]:
    """The command, which ends with 5: those cards are not there."""
    words = [tools.hostdev(), "--host", str(host.root), "--json", "status"]
    return lambda: run(words, codes=(5,)).wall


def host_with(path: str, size: int, cards: Sequence[str] = (CARD,)) -> SimulatedHost:
    """A host with these cards, detached, whose ledger has this many records."""
    host = SimulatedHost.create(path)
    host.add_pci(CONTROLLER, class_="0c0330", id="8086:a36d", kernel_driver="xhci_hcd")
    for card in (NIC, *cards):
        host.add_pci(card, kernel_driver="e1000e")
    for port in (FREE, TAKEN):
        host.add_usb(port, controller=CONTROLLER)
    with connect(host) as conn:
        for card in cards:
            conn.detach_device(card)
        conn.prepare_hostdevs(Domain("taker", [TAKEN]))
        conn.prepare_hostdevs(Domain("others", [NIC]))
    multiply(f"{host.state_dir}/state.db", size - 2 - len(cards))
    return host


def multiply(ledger: str, count: int) -> None:
    """Copy the record of NIC, whatever its form, to so many other addresses."""
    with closing(sqlite3.connect(ledger)) as db, db:
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")
        ]
        for name in tables:
            columns = [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')]
            if "address" not in columns:
                continue
            (row,) = db.execute(f'SELECT * FROM "{name}" WHERE address = ?', [NIC])
            marks = ", ".join("?" * len(columns))
            copies = (_copy(dict(zip(columns, row, strict=True)), n) for n in range(count))
            db.executemany(f'INSERT INTO "{name}" VALUES ({marks})', copies)


def _copy(record: dict[str, object], number: int) -> list[object]:
    """The record, of another card in a group of its own."""
    rest, slot = divmod(number, 32)
    domain, bus = divmod(rest, 256)
    new: dict[str, object] = {"address": f"{domain + 1:04x}:{bus:02x}:{slot:02x}.0"}
    if record.get("iommu_group") is not None:
        new["iommu_group"] = 1000 + number
    return [*(record | new).values()]


def by_processes(crowds: Sequence[int], rounds: int) -> Table:
    """How many claims a second so many processes make together."""
    columns = [f"{count} process{'es' * (count > 1)}" for count in crowds]
    table = Table(
        "Claims per second",
        f"Each process lends and releases a detached card of its own, again and again for {SECONDS:g} s, all "
        f"with one ledger, on {os.cpu_count()} CPUs. Counted are whole trips of all processes. Verified: "
        "each trip returns its card, and none is lent at the end.",
        columns,
        unit="/s",
        base_column=columns[0],
    )
    with in_memory() as folder:
        cards = [f"0000:{bus:02x}:00.0" for bus in range(2, 2 + max(crowds))]
        host = host_with(f"{folder}/host", 2 + len(cards), cards)
        works = {
            column: lambda count=count: crowd(host, cards[:count])
            for column, count in zip(columns, crowds, strict=True)
        }
        say(f"claims per second of {', '.join(columns)}")
        for column, rates in turns(works, rounds).items():
            table.add("claim, activate, release: a card", column, *rates)
        with connect(host) as conn:
            assert len(conn.get_inactive_pci_hostdev_list()) == len(cards)
    return table


def crowd(host: SimulatedHost, cards: Sequence[str]) -> float:
    """Trips a second of a process for each card."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(cards) + 1)
    ends = [context.Pipe(duplex=False) for _ in cards]
    members = [
        context.Process(target=_member, args=(str(host.root), card, start, answer))
        for card, (_, answer) in zip(cards, ends, strict=True)
    ]
    for member in members:
        member.start()
    start.wait()
    started = time.monotonic()
    trips: int = sum(receiver.recv() for receiver, _ in ends)
    taken = time.monotonic() - started
    for member in members:
        member.join()
    return trips / taken


def _member(root: str, card: str, start: Barrier, answer: Pipe) -> None:
    """One process of a crowd."""
    with connect(SimulatedHost.open(root)) as conn:
        card_trip(conn, card)
        start.wait()
        end, trips = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            card_trip(conn, card)
            trips += 1
    answer.send(trips)
