"""The other tools: where they are, and how to get one that is missing."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.turns import say
from tests.kernel import lab

SCRIPT = Path(__file__).resolve().parent / "tools.sh"
HOW = {
    "lspci": "apt-get install pciutils",
    "driverctl": "apt-get install driverctl",
    "dpdk-devbind.py": "apt-get install dpdk",
    "devbind": "pip install devbind",
}


@functools.cache
def peers() -> str | None:
    """The folder with driverctl and dpdk-devbind, beside the kernel lab; made when it is missing.

    None where it cannot be made: then those of the machine are taken, if it has them.
    """
    folder = lab.lab_dir().with_name(lab.lab_dir().name + "-peers")
    if not (folder / "usr/bin/dpdk-devbind.py").exists():
        try:
            subprocess.run([SCRIPT, folder], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or str(error)
            say(f"driverctl and dpdk-devbind cannot be fetched: {said.strip()}")
            return None
    return str(folder)


def path() -> str:
    """Where programs are looked for: this Python's own, the path, and what was fetched."""
    folders = [sysconfig.get_path("scripts"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    fetched = peers()
    return os.pathsep.join(
        folders + ([f"{fetched}/usr/{d}" for d in ("bin", "sbin")] if fetched else [])
    )


def find(program: str) -> str | None:
    """The path of a program; None where it is missing."""
    return shutil.which(program, path=path())


def how(program: str) -> str:
    """What is said of a program that is missing."""
    return f"not measured: {program} is not installed ({HOW.get(program, 'see its project')})"


def hostdev() -> str:
    """The `hostdev` beside this Python."""
    found = find("hostdev")
    if found is None:
        sys.exit(f"hostdev is not installed beside {sys.executable}")
    return found


def optional_plugins() -> str:
    """Installed plugins that do not come with hostdev, for HOSTDEV_DISABLE_PLUGINS."""
    points = importlib.metadata.entry_points(group="hostdev")
    return ",".join(sorted({point.name for point in points} - {"libxl", "qemu", "test"})) or "none"
