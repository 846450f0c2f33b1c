"""The command in namespaces of its own, as in a container."""

import os
import subprocess
from pathlib import Path

import pytest

from hostdev_core.kernel.processes import INITIAL_PID_NAMESPACE
from tests.helpers.cli_command import COMMAND, clean_environment

OWN_RUN = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs own /run && exec "$@"', "sh")
OWN_PROCESSES = ("unshare", "--pid", "--fork", "--mount-proc")
READ_ONLY_USR = (
    "unshare", "--mount", "sh", "-c",
    'mount -o bind,ro /usr /usr && mount -t tmpfs own /mnt && exec "$@"', "sh",
)  # fmt: skip


def can_unshare() -> bool:
    words = [*OWN_RUN, *OWN_PROCESSES, "true"]
    try:
        return not subprocess.run(words, check=False, capture_output=True).returncode
    except OSError:
        return False


def is_container() -> bool:
    """Or a chroot, whose own root is none of its mounts."""
    roots = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return os.stat("/proc/self/ns/pid").st_ino != INITIAL_PID_NAMESPACE or "/" not in roots


needs_namespaces = pytest.mark.skipif(not can_unshare(), reason="needs the right to unshare")
needs_host = pytest.mark.skipif(is_container(), reason="this is a container already")


def inside(place: tuple[str, ...], *words: str, **variables: str) -> tuple[int, str, str]:
    """Run the command on this machine, in namespaces of its own."""
    done = subprocess.run(
        [*place, *COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=clean_environment(**variables),
    )
    return done.returncode, done.stdout, done.stderr
