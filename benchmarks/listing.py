"""Listing: `hostdev list` beside tools that list PCI devices, and a look beside a bare loop in process.

Each lists the same simulated machine: lspci by its option for where sysfs is, the others with the simulated
/sys in the place of the real one, in a mount namespace (root only); hostdev so and by `--host`.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence

from benchmarks import tools
from benchmarks.results import Section, Table
from benchmarks.turns import SLOW, in_memory, reason, rotated, run, say, timed, turns
from hostdev_core import Registry, open_connection
from hostdev_core.simulated import SimulatedHost

BASE = "`lspci -n`"
HOSTDEV = "`hostdev list`"
LOOP, LOOK = "bare loop over three attributes", "`list_devices()`"
IN_PROCESS = 1024
ADDRESS = rb"\b[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
MOUNTED = {
    HOSTDEV: ("hostdev", "list"),
    "`hostdev list --json`": ("hostdev", "list", "--json"),
    "`driverctl list-devices`": ("driverctl", "list-devices"),
    "`dpdk-devbind --status-dev net`": ("dpdk-devbind.py", "--status-dev", "net"),
    "`devbind --list`": ("devbind", "--list", "--classcode", "0x0200"),
}


def measure(sizes: Sequence[int], rounds: int) -> Section:
    """The section: commands and a look in process."""
    with in_memory() as folder:
        hosts = {}
        for size in sizes:
            say(f"a machine of {size:,} devices")
            hosts[size] = machine(f"{folder}/{size}", size)
        compiled = f"{folder}/compiled"
        tables = [commands(hosts, rounds, compiled), this_machine(rounds, compiled)]
        if IN_PROCESS in hosts:
            tables.append(in_process(hosts[IN_PROCESS], rounds))
    return Section(
        "Listing",
        "A simulated machine of network cards, each with a driver and an IOMMU group. Every tool lists the "
        "same machine, as a whole command with its start. What "
        "the real sysfs costs the kernel is not in it, for anybody.",
        tables,
    )


def machine(path: str, size: int) -> SimulatedHost:
    """A machine with so many network cards, each in an IOMMU group of its own."""
    host = SimulatedHost.create(path)
    for number in range(size):
        rest, slot = divmod(number, 32)
        domain, bus = divmod(rest, 256)
        host.add_pci(
            f"{domain:04x}:{bus:02x}:{slot:02x}.0", kernel_driver="e1000e", iommu_group=number
        )
    return host


@contextlib.contextmanager
def mounted(host: SimulatedHost) -> Generator[list[str]]:
    """Words that run a command where /sys is the simulated one: in a namespace that is there meanwhile.

    OSError with the reason where that cannot be.
    """
    script = 'mount --bind "$0" /sys && echo mounted && exec sleep inf'
    words = ["unshare", "--mount", "sh", "-c", script, f"{host.root}/sys"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stderr is not None
            if not holder.stdout.readline():
                raise OSError(holder.stderr.read().strip())
            yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        finally:
            holder.kill()


Words = dict[str, list[str]]


def by_option(host: SimulatedHost, table: Table) -> Words:
    """The tools that can be told where sysfs is."""
    found = {"`hostdev --host DIR list`": [tools.hostdev(), "list", "--host", str(host.root)]}
    lspci = tools.find("lspci")
    if lspci is None:
        table.missing(BASE, tools.how("lspci"))
        return found
    there = [lspci, "-A", "linux-sysfs", "-O", f"sysfs.path={host.root}/sys/bus/pci", "-D"]
    return {BASE: [*there, "-n"], "`lspci -nnk`": [*there, "-nnk"], **found}


def by_mount(enter: Sequence[str], table: Table) -> Words:
    """The others, which see a /sys that is mounted for them."""
    found: Words = {}
    for name, (program, *words) in MOUNTED.items():
        path = tools.find(program)
        if path is None:
            table.missing(name, tools.how(program))
        else:
            start = [sys.executable] if path.endswith(".py") else []
            found[name] = [*enter, *start, path, *words]
    return found


def commands(hosts: Mapping[int, SimulatedHost], rounds: int, compiled: str) -> Table:
    """The whole commands."""
    columns = [f"{size:,} devices" for size in hosts]
    table = Table(
        "Commands", "Verified: exit code 0, and each device's address is in the output. lspci and "
        "`hostdev --host DIR list`, which loads what simulates a host, are told where sysfs is; the others "
        "enter a mount namespace where it is /sys, by `nsenter`, which adds a millisecond. "
        "devbind is asked for network cards (it lists NVMe unless told) and also looks "
        "for who has them open; dpdk-devbind looks for which are routed.",
        columns, base_row=BASE)  # fmt: skip
    for column, (size, host) in zip(columns, hosts.items(), strict=True):
        say(f"listing of {column}")
        with contextlib.ExitStack() as stack:
            words = by_option(host, table)
            try:
                words |= by_mount(stack.enter_context(mounted(host)), table)
            except OSError as error:
                for name in MOUNTED:
                    table.missing(name, f"not measured: a mount namespace is root's ({error})")
            take_turns(table, column, size, words, rounds, environment(compiled))
    return table


def this_machine(rounds: int, compiled: str) -> Table:
    """The commands that list all devices, on the machine that this runs on."""
    count = len(os.listdir("/sys/bus/pci/devices"))
    column = f"{count} devices"
    table = Table("This machine", "The same commands on the real sysfs of the machine that this was run on.",
                  [column], base_row=BASE)  # fmt: skip
    words: Words = {}
    for name, (program, *rest) in {
        BASE: ("lspci", "-D", "-n"),
        "`lspci -nnk`": ("lspci", "-D", "-nnk"),
        HOSTDEV: MOUNTED[HOSTDEV],
        "`driverctl list-devices`": MOUNTED["`driverctl list-devices`"],
    }.items():
        path = tools.find(program)
        if path is None:
            table.missing(name, tools.how(program))
        else:
            words[name] = [path, *rest]
    take_turns(table, column, count, words, rounds, environment(compiled))
    return table


def environment(compiled: str) -> dict[str, str]:
    """The commands': Python's compiled files are kept, as pip makes them when it installs."""
    return {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": "", "PATH": tools.path()}


def take_turns(
    table: Table, column: str, size: int, words: Words, rounds: int, env: Mapping[str, str]
) -> None:
    """Let those that list all devices take turns; who is very slow has one turn."""
    going = [name for name in words if verified(table, name, words[name], size, env)]
    for number in range(rounds):
        for name in rotated(going, number):
            if number == 0 or (table.middle(name, column) or 0) < SLOW:
                table.add(name, column, run(words[name], env).wall)


def verified(
    table: Table, name: str, words: Sequence[str], size: int, env: Mapping[str, str]
) -> bool:
    """Whether a tool lists all devices; noted where it does not. This first run also fills caches."""
    try:
        done = subprocess.run(
            words, check=True, capture_output=True, env={**os.environ, **env}, timeout=600
        )
    except (OSError, subprocess.SubprocessError) as error:
        table.missing(name, f"failed with {size:,} devices: {reason(error)}")
        return False
    listed = len({*re.findall(ADDRESS, done.stdout)})
    if listed != size:
        table.missing(name, f"lists {listed:,} of {size:,} devices")
        return False
    return True


def in_process(host: SimulatedHost, rounds: int) -> Table:
    """A look at all devices, beside the least that one can read of them."""
    column = f"{IN_PROCESS:,} devices"
    table = Table(
        "In process", "The bare loop opens each device's folder and reads `modalias` and the links `driver` "
        "and `iommu_group`, relative to it. `list_devices()` answers complete devices, joined with the "
        "records, by a connection that is open. Verified: both tell of all devices.",
        [column], base_row=LOOP)  # fmt: skip
    folder = f"{host.root}/sys/bus/pci/devices"
    with open_connection(
        "qemu:///system", host=host, registry=Registry.from_entry_points()
    ) as conn:
        assert len(bare_loop(folder)) == len(conn.list_devices()) == IN_PROCESS
        works = {
            LOOP: lambda: timed(lambda: bare_loop(folder)),
            LOOK: lambda: timed(conn.list_devices),
        }
        for name, taken in turns(works, 3 * rounds).items():
            table.add(name, column, *taken)
    return table


def bare_loop(folder: str) -> list[tuple[str, str, str, str]]:
    """The least: three attributes of each device."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY)
            text = os.open("modalias", os.O_RDONLY, dir_fd=fd)
            modalias = os.read(text, 4096).decode()
            os.close(text)
            driver = group = ""
            with contextlib.suppress(FileNotFoundError):
                driver = os.readlink("driver", dir_fd=fd).rpartition("/")[2]
                group = os.readlink("iommu_group", dir_fd=fd).rpartition("/")[2]
            os.close(fd)
            found.append((entry.name, modalias, driver, group))
    return found
