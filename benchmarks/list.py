"""How long `hostdev list` takes beside PyPI's `devbind --list`; medians of the whole command.

    python benchmarks/list.py [RUNS]

Both list the machine this runs on. For 1,024 devices a simulated machine's /sys is put in place of the
real one, in a mount namespace of its own (root only); elsewhere `hostdev --host` is measured alone. The
two take turns, so that a noisy machine is noisy for both. devbind itself calls lspci. Python's compiled
files are kept for both, as pip makes them when it installs.
"""

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hostdev_core.simulated import SimulatedHost

DEVICES = 1024
Commands = Mapping[str, Sequence[str]]


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    commands = {"hostdev list": [program("hostdev"), "list"]}
    if shutil.which("devbind", path=folders()):
        commands["devbind --list"] = [program("devbind"), "--list"]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="hostdev-benchmark-") as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        here = len(os.listdir("/sys/bus/pci/devices"))
        report(f"this machine, {here} PCI devices", commands, runs)
        host = big_machine(f"{folder}/machine")
        title = f"simulated machine, {DEVICES} PCI devices"
        there = {"hostdev list --host": [program("hostdev"), "list", "--host", host.root]}
        mounted = {name: in_place(host, words) for name, words in commands.items()}
        if works(mounted["hostdev list"]):
            there |= mounted
        else:
            title += " (no mount namespace here: hostdev alone)"
        report(title, there, runs)


def big_machine(path: str) -> SimulatedHost:
    """A machine with many network cards, each in an IOMMU group of its own."""
    host = SimulatedHost.create(path)
    for number in range(DEVICES):
        bus, slot = divmod(number, 32)
        host.add_pci(f"0000:{bus:02x}:{slot:02x}.0", kernel_driver="e1000e", iommu_group=number)
    return host


def in_place(host: SimulatedHost, words: Sequence[str]) -> list[str]:
    """The command, run where this machine's /sys is the simulated one."""
    script = 'mount --bind "$0" /sys && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, f"{host.root}/sys", *words]


def works(words: Sequence[str]) -> bool:
    """Whether the command can be run here."""
    try:
        return subprocess.run(words, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def report(title: str, commands: Commands, runs: int) -> None:
    """Let the commands take turns; print median, fastest run and exit code of each."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    codes: dict[str, int] = {}
    for words in commands.values():
        subprocess.run(words, check=False, capture_output=True)  # compiles, fills the caches
    for _ in range(runs):
        for name, words in commands.items():
            started = time.perf_counter()
            done = subprocess.run(words, check=False, capture_output=True)
            times[name].append(time.perf_counter() - started)
            codes[name] = done.returncode
    print(f"{title}; {runs} runs")
    for name, taken in times.items():
        middle, least = statistics.median(taken) * 1000, min(taken) * 1000
        print(f"  {name:20} median {middle:7.1f} ms   least {least:7.1f} ms   exit {codes[name]}")


def folders() -> str:
    """Where this Python's programs are, then the rest of the path."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def program(name: str) -> str:
    """The path of an installed program."""
    found = shutil.which(name, path=folders())
    if found is None:
        sys.exit(f"{name} is not installed beside {Path(sys.executable)}")
    return found


if __name__ == "__main__":
    main()
