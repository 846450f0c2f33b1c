"""Lending on a real kernel: an emulated machine of tests/kernel is booted, and all ways take turns in it."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import inside, tools
from benchmarks.results import Section, Table
from benchmarks.turns import say
from tests.kernel import lab, machines, tested_on
from tests.kernel.guest import Guest, wait_until
from tests.kernel.guest_command import GuestError

AT_BOOT = 8
"""More e1000e than these have no room in the I/O ports that the firmware hands out: they are plugged in."""
DISKS = 8
TIMEOUT = 4 * 3600.0
LIBVIRT = "id -u libvirt-qemu >/dev/null 2>&1 || useradd -rU libvirt-qemu"
"""Its daemon does not start without that user."""


class Trial(NamedTuple):
    """What is lent in a guest: the cards, from their driver to a stub, in which numbers and how often."""

    title: str
    cards: tuple[str, ...]
    driver: str
    stub: str
    counts: tuple[int, ...]
    rounds: int
    module: str
    reset: bool = False
    about: str = ""


def measure(counts: Sequence[int], rounds: int, *, nvme: bool, xen: bool) -> list[Section]:
    """The sections: cards on the bare kernel, and under Xen."""
    nics, disks = max(counts), DISKS if nvme else 0
    trials = [
        Trial(f"Network cards (e1000e) on vfio-pci, {lab.DEBIAN12.title}", addresses(1, nics),
              "e1000e", "vfio-pci", (*counts,), rounds, "vfio-pci"),
        *(_of_nvme(addresses(nics + 1, disks), counts, rounds) if nvme else ()),
    ]  # fmt: skip
    sections = [or_reason(BARE, lambda: _in_guest(BARE, trials, nics, disks, xen=False))]
    if xen:
        fitting = [count for count in counts if count <= AT_BOOT]
        some = tuple(sorted({min(fitting, default=1), max(fitting, default=1)}))
        trial = Trial("Network cards (e1000e) on pciback", addresses(1, some[-1]), "e1000e",
                      "pciback", some, min(rounds, 3), "xen-pciback")  # fmt: skip
        sections.append(or_reason(XEN, lambda: _in_guest(XEN, [trial], some[-1], 0, xen=True)))
    return sections


def _of_nvme(cards: tuple[str, ...], counts: Sequence[int], rounds: int) -> list[Trial]:
    some = tuple(count for count in counts if count <= len(cards)) or (1,)
    plain = Trial("NVMe on vfio-pci", cards, "nvme", "vfio-pci", some, rounds, "vfio-pci")
    about = ("With a function-level reset on the stub, between two users; the base makes it by a write to "
             "`reset`. hostdev detaches and resets by a call each, from a thread for each disk. None of the "
             "other tools resets.")  # fmt: skip
    return [plain, plain._replace(title="NVMe, reset on vfio-pci", reset=True, about=about)]


def or_reason(section: Section, measured: Callable[[], Section]) -> Section:
    """What was measured, or the section with the reason why no machine could be booted."""
    try:
        return measured()
    except (lab.LabError, GuestError) as error:
        say(str(error))
        why = " ".join(str(error).split())[:500]
        return Section(section.title, f"Not measured here: {why}\n\n{section.text}", [])


BARE = Section(
    "Lending on a real kernel",
    """\
A Debian 12 kernel in an emulated machine of two CPUs (QEMU without KVM, udev running), each card behind
a root port of its own and in an IOMMU group of its own. Emulation makes programs tens of times slower
than they are on a real machine, and cards hardly: what a program computes, Python's start before all,
weighs much more here than it does there, and waiting for hardware less.

The base is what no tool can do without, made with a thread for each card: the writes to
`driver_override`, `unbind` and `bind`. After each turn it is verified, untimed, that every card is on
the stub with its node in /dev/vfio, or back on its own driver without an override; udev has settled
before the next turn. A tool whose cards are not where they belong has a note instead of that figure.
libvirtd runs, and is stopped (SIGSTOP) while others have their turn: it looks at all that they do.

hostdev is measured in three ways: one call for all cards by a connection that is open; the same with
`worker=True`, where a process of its own carries each call out; and the whole of `hostdev prepare` and
`hostdev reattach`, of which `hostdev --version` shows how much is the start alone. virsh is measured
once for each card, and once with all cards in one call; driverctl takes a card a call.""",
    [],
)
XEN = Section(
    "Lending to Xen",
    """\
The same in dom0 of Xen 4.17. libxl's own way, `xl pci-assignable-add` and `remove -r`, takes a card a
call. The base moves cards by `new_slot`, `unbind` and `bind`, and back by `unbind`, `remove_slot` and
`bind`. hostdev also resets each card on pciback, which xl leaves to the moment when a domain gets it:
that is in its figures, and not in the others'.""",
    [],
)


def addresses(first: int, count: int) -> tuple[str, ...]:
    """The cards behind the root ports from this number on."""
    return tuple(f"0000:{bus:02x}:00.0" for bus in range(first, first + count))


def _in_guest(
    section: Section, trials: Sequence[Trial], nics: int, disks: int, *, xen: bool
) -> Section:
    """Boot a machine with these cards, let all trials run in it, and make tables of what they say."""
    os.environ.setdefault("HOSTDEV_DISABLE_PLUGINS", tools.optional_plugins())
    peers = tools.peers()
    say(f"boot of a machine with {nics} network cards and {disks} NVMe{' under Xen' * xen}")
    with tempfile.TemporaryDirectory(prefix="hostdev-benchmark-") as name:
        devices = [*machines.small(min(nics, AT_BOOT)), *_more(nics, disks)]
        with Guest(Path(name) / "guest", devices, xen=xen, memory=2048, cpus=2) as guest:
            _plug(guest, range(AT_BOOT + 1, nics + 1))
            guest.check(LIBVIRT)
            versions = " ".join(f"{name} {version}," for name, version in tested_on.versions(guest))
            tables = [table for trial in trials for table in _run(guest, trial, peers)]
    text = f"{section.text}\n\nIn the machine: {versions.strip(',')}."
    return Section(section.title, text, tables)


def _more(nics: int, disks: int) -> list[str]:
    """Empty root ports for the further network cards, and NVMe disks of zeroes behind theirs."""
    words: list[str] = []
    for port in range(AT_BOOT + 1, nics + 1):
        words += ["-device", f"pcie-root-port,id=port{port},chassis={port},slot={port}"]
    for port in range(nics + 1, nics + disks + 1):
        words += ["-device", f"pcie-root-port,id=port{port},chassis={port},slot={port}"]
        words += ["-blockdev", f"null-co,node-name=disk{port},size=16777216"]
        words += ["-device", f"nvme,bus=port{port},drive=disk{port},serial=s{port}"]
    return words


def _plug(guest: Guest, ports: range) -> None:
    for port in ports:
        guest.monitor(f"device_add e1000e,id=nic{port},bus=port{port},romfile=")
    for port in ports:
        (card,) = addresses(port, 1)
        wait_until(guest, f"[ -e /sys/bus/pci/drivers/e1000e/{card} ]")
    guest.check("udevadm settle -t 120")


def _run(guest: Guest, trial: Trial, peers: str | None) -> list[Table]:
    say(f"{trial.title}: {trial.rounds} rounds of {', '.join(map(str, trial.counts))} cards")
    words = [guest.system.python, "-m", "benchmarks.inside", json.dumps(trial._asdict())]
    handle = guest.start(
        f"export DPDK_DEVBIND={peers or ''}/usr/bin/dpdk-devbind.py PATH=$PATH:{peers or ''}/usr/sbin\n"
        f"exec {shlex.join(words)}"
    )
    end, told = time.monotonic() + TIMEOUT, 0
    while handle.running and time.monotonic() < end:
        lines = handle.stdout.split("\n")[:-1]
        for line in lines[told:]:
            say(f"  {line}")
        told = len(lines)
        time.sleep(2)
    done = handle.wait(timeout=60)
    if done.returncode:
        raise RuntimeError(f"the guest's measurement ended with {done.returncode}: {done.stderr}")
    return tables(trial, map(json.loads, done.stdout.splitlines()))


def tables(trial: Trial, lines: Iterable[Mapping[str, Any]]) -> list[Table]:
    """Two tables of what a guest printed: there and back."""
    columns = [_cards(count) for count in trial.counts]
    found = [
        Table(
            f"{trial.title}: {verb}",
            f"{text} {trial.about}".strip(),
            columns,
            base_row=inside.FLOOR_AT_ONCE,
        )
        for verb, text in (
            ("prepare", f"From {trial.driver} to {trial.stub}."),
            ("reattach", f"Back from {trial.stub} to {trial.driver}."),
        )
    ]
    for line in lines:
        for table, direction in zip(found, ("there", "back"), strict=True):
            if "error" in line:
                where = f" ({_cards(line['cards'])})" if line["cards"] else ""
                table.missing(line["way"], f"failed{where}: {line['error']}")
            else:
                table.add(line["way"], _cards(line["cards"]), line[direction])
    return found


def _cards(count: int) -> str:
    return "1 card" if count == 1 else f"{count} cards"
