"""In the guest: the ways to lend PCI cards to the stub driver and back, one behind another's interface.

They are the same for all: `lend` moves cards from their own driver to the stub, `back` moves them home.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.turns import run
from hostdev_core import Connection, Domain

PCI = "/sys/bus/pci"
Cards = Sequence[str]
LIBVIRT_LOG = "/run/libvirtd.log"


class Way:
    """A way to lend cards. `ready` and `rest` are called before and after its turn, untimed."""

    def __init__(
        self, name: str, lend: Callable[[Cards], object], back: Callable[[Cards], object]
    ) -> None:
        self.name = name
        self.lend = lend
        self.back = back

    def ready(self) -> None:
        """Its turn comes."""

    def rest(self) -> None:
        """Its turn is over."""


def write(path: str, value: str) -> None:
    """One write(2) to an attribute."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


class Writes:
    """The bare writes that each way must make the kernel take, card by card or with a thread for each."""

    def __init__(self, stub: str, driver: str, *, slots: bool = False, reset: bool = False) -> None:
        self._stub, self._driver = stub, driver
        self._slots, self._reset = slots, reset

    def lend_one(self, card: str) -> None:
        """Move a card to the stub."""
        if self._slots:
            write(f"{PCI}/drivers/{self._stub}/new_slot", card)
        else:
            write(f"{PCI}/devices/{card}/driver_override", self._stub)
        write(f"{PCI}/drivers/{self._driver}/unbind", card)
        write(f"{PCI}/drivers/{self._stub}/bind", card)
        if self._reset:
            write(f"{PCI}/devices/{card}/reset", "1")

    def back_one(self, card: str) -> None:
        """Move a card home."""
        write(f"{PCI}/drivers/{self._stub}/unbind", card)
        if self._slots:
            write(f"{PCI}/drivers/{self._stub}/remove_slot", card)
        else:
            write(f"{PCI}/devices/{card}/driver_override", "\n")
        write(f"{PCI}/drivers/{self._driver}/bind", card)

    def one_by_one(self, name: str) -> Way:
        """A card after the other."""
        return Way(
            name,
            lambda cards: [*map(self.lend_one, cards)],
            lambda cards: [*map(self.back_one, cards)],
        )

    def at_once(self, name: str) -> Way:
        """A thread for each card."""
        return Way(
            name,
            lambda cards: in_threads(self.lend_one, cards),
            lambda cards: in_threads(self.back_one, cards),
        )


def in_threads(call: Callable[[str], object], cards: Cards) -> None:
    """A call for each card, each but the first in a thread of its own; an error is raised."""
    first, *others = cards
    with ThreadPoolExecutor(len(cards)) as pool:
        going = [pool.submit(call, card) for card in others]
        call(first)
        for one in going:
            one.result()


def library(name: str, conn: Connection) -> Way:
    """One call of an open connection for all cards."""
    return Way(
        name,
        lambda cards: conn.prepare_hostdevs(Domain("benchmark", cards)),
        lambda cards: conn.reattach_hostdevs("benchmark"),
    )


def resetting(name: str, conn: Connection) -> Way:
    """Detach and reset, from a thread for each card."""

    def lend(card: str) -> None:
        conn.detach_device(card)
        conn.reset_device(card)

    return Way(
        name,
        lambda cards: in_threads(lend, cards),
        lambda cards: in_threads(conn.reattach_device, cards),
    )


def hostdev(*words: str) -> list[str]:
    """The `hostdev` command of this Python."""
    beside = os.path.join(os.path.dirname(sys.executable), "hostdev")
    found = [beside] if os.path.exists(beside) else [sys.executable, "-m", "hostdev_core.cli"]
    return [*found, *words]


def command(name: str, uri: str) -> Way:
    """One `hostdev` for all cards."""
    return Way(
        name,
        lambda cards: _run(*hostdev("prepare", "-c", uri, "benchmark", *cards)),
        lambda cards: _run(*hostdev("reattach", "-c", uri, "benchmark")),
    )


def start_of_command(name: str) -> Way:
    """What of the command is the start of Python and of hostdev: it moves no card."""
    return Way(
        name, lambda cards: _run(*hostdev("--version")), lambda cards: _run(*hostdev("--version"))
    )


def each(name: str, lend: Sequence[str], back: Sequence[str], spelt: Callable[[str], str]) -> Way:
    """A tool that takes one card: it is run for each, one after the other."""

    def run_each(words: Sequence[str], cards: Cards) -> None:
        for card in cards:
            _run(*(word.replace("CARD", spelt(card)) for word in words))

    return Way(name, lambda cards: run_each(lend, cards), lambda cards: run_each(back, cards))


def all_in_one(name: str, lend: Sequence[str], back: Sequence[str]) -> Way:
    """A tool that takes all cards."""
    return Way(
        name, lambda cards: _run(*lend, *cards), lambda cards: _run(*back, *cards)
    )  # fmt: skip


class Libvirt(Way):
    """virsh, whose daemon is stopped while others have their turn: it would look at what they do."""

    daemon: subprocess.Popen[bytes] | None = None

    def ready(self) -> None:
        """Let it run, until it has seen what the others did."""
        daemon = self._daemon()
        daemon.send_signal(signal.SIGCONT)
        before, since = -1, time.monotonic()
        while time.monotonic() - since < 30 and (now := _ticks(daemon.pid)) != before:
            before = now
            time.sleep(0.7)

    def rest(self) -> None:
        """Stop it."""
        self._daemon().send_signal(signal.SIGSTOP)

    def _daemon(self) -> subprocess.Popen[bytes]:
        if Libvirt.daemon is None or Libvirt.daemon.poll() is not None:
            Libvirt.daemon = _start_libvirtd()
        return Libvirt.daemon


def end_libvirtd() -> None:
    """End the daemon, if one was started: another one finds its socket free."""
    daemon, Libvirt.daemon = Libvirt.daemon, None
    if daemon is not None:
        daemon.kill()
        daemon.wait()


def _start_libvirtd() -> subprocess.Popen[bytes]:
    """Start libvirt's daemon and wait until it answers."""
    with open(LIBVIRT_LOG, "wb") as log:
        daemon = subprocess.Popen(["libvirtd"], stdout=log, stderr=log)
    end = time.monotonic() + 120
    while subprocess.run(
        ["timeout", "30", "virsh", "list"], check=False, capture_output=True
    ).returncode:
        if time.monotonic() > end or daemon.poll() is not None:
            daemon.kill()
            daemon.wait()
            with open(LIBVIRT_LOG, encoding="utf-8") as log:
                raise TimeoutError(f"libvirtd does not answer: {log.read()[-200:]}")
        time.sleep(1)
    return daemon


def libvirt() -> list[Way]:
    """virsh for each card, and one virsh that is told all of them."""

    def told(verb: str, cards: Cards) -> None:
        _run("virsh", "; ".join(f"{verb} {node(card)}" for card in cards))

    one = each("", ["virsh", "nodedev-detach", "CARD"], ["virsh", "nodedev-reattach", "CARD"], node)
    return [
        Libvirt("virsh nodedev, a call each", one.lend, one.back),
        Libvirt(
            "virsh nodedev, one call",
            lambda cards: told("nodedev-detach", cards),
            lambda cards: told("nodedev-reattach", cards),
        ),
    ]


def node(card: str) -> str:
    """What libvirt calls a card."""
    return f"pci_{card.replace(':', '_').replace('.', '_')}"


def is_there(program: str) -> bool:
    """Whether a tool is in the guest."""
    return shutil.which(program) is not None


def _ticks(pid: int) -> int:
    """The CPU time that a process has had."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _run(*words: str) -> None:
    run(words)
