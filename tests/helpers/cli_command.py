"""Runs the real `hostdev` command on simulated hosts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hostdev_core.simulated import SimulatedHost

COMMAND = [sys.executable, "-m", "hostdev_core.cli"]
QEMU = ("-c", "qemu:///system")
# Whether this machine has one, which a container may lack.
MODPROBE = shutil.which("modprobe", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def run(
    *words: str, host: SimulatedHost | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with `--host` where there is one."""
    place = () if host is None else ("--host", host.root)
    return subprocess.run(
        [*COMMAND, *words, *place],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        **more,
    )


def addresses(host: SimulatedHost) -> list[str]:
    """The devices of which the ledger has a record."""
    return [record.address for record in host.ledger.records()]


_AS_NOBODY = Path(__file__).with_name("as_nobody.py")


def run_as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command's code as user 65534; imported before: checkout and Python may be root's alone.

    Who is not root is somebody else already.
    """
    if os.geteuid() != 0:
        return run(*words)
    return subprocess.run(
        [sys.executable, "-P", _AS_NOBODY, *words], capture_output=True, text=True, check=False
    )


def start(*words: str, host: SimulatedHost, **more: Any) -> subprocess.Popen[str]:
    """Start it and go on."""
    return subprocess.Popen(
        [*COMMAND, *words, "--host", host.root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        **more,
    )


def ask(*words: str, host: SimulatedHost | None = None, **more: Any) -> Any:
    """The JSON document that a command prints, whatever its exit code."""
    return json.loads(run(*words, "--json", host=host, **more).stdout)


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change the command's ways."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOSTDEV_", "COLUMNS"))}
    return kept | more


def with_installed(folder: Path) -> str:
    """The PYTHONPATH on which what is installed in a folder is found first."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
