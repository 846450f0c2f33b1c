"""On what a run was made: machine, kernel, Python, and the versions of the tools."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess

from benchmarks import tools
from benchmarks.turns import memory
from hostdev_core import __version__

VERSIONS: dict[str, tuple[str, ...]] = {
    "lspci": ("lspci", "--version"),
    "devbind": ("devbind", "--version"),
    "QEMU": ("qemu-system-x86_64", "--version"),
}


def facts() -> dict[str, str]:
    """What there is to say, by its name."""
    load = os.getloadavg()[0]
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": f"{_cpu()}, {os.cpu_count()} CPUs, {_memory():.0f} GB; load {load:.1f} at the begin",
        "system": f"{_system()}, kernel {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "simulated hosts": "in memory" if memory() else "on a disk, which takes its time",
        "hostdev": f"{__version__}{_commit()}, without the plugins that do not come with it",
        **{name: _version(words) for name, words in VERSIONS.items()},
        **_fetched(),
    }


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _said(*words: str) -> str:
    """What a command says; "" where it fails."""
    env = {**os.environ, "PATH": tools.path()}
    try:
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout or done.stderr).strip()


def _commit() -> str:
    commit = _said("git", "describe", "--always", "--dirty")
    return f" ({commit})" if commit else ""


def _version(words: tuple[str, ...]) -> str:
    found = re.search(r"\d+(\.\d+)+", _said(*words))
    return found[0] if found else "not installed"


def _fetched() -> dict[str, str]:
    """The packages that were fetched, by their changelogs."""
    found: dict[str, str] = {}
    for name in ("driverctl", "dpdk"):
        log = f"{tools.peers()}/usr/share/doc/{name}/changelog.Debian.gz"
        match = re.search(r"\((.+?)\)", _said("sh", "-c", f"zcat {log} | head -n 1"))
        found[name] = match[1] if match else "not there"
    return found
